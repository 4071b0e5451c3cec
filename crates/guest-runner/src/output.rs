//! A job's output: what is kept of each stream, and the pieces that events carry. Pure.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use protocol::job::Chunk;

/// One stream's bytes up to its cap.
#[derive(Debug)]
pub(crate) struct Capture {
    kept: Vec<u8>,
    cap: usize,
    truncated: bool,
}

impl Capture {
    pub(crate) fn new(cap: u64) -> Self {
        Self {
            kept: Vec::new(),
            cap: usize::try_from(cap).unwrap_or(usize::MAX),
            truncated: false,
        }
    }

    /// Takes what the stream brought and gives back the part of it that was kept.
    pub(crate) fn push<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let room = self.cap - self.kept.len();
        let kept = &bytes[..bytes.len().min(room)];
        self.kept.extend_from_slice(kept);
        self.truncated |= kept.len() < bytes.len();
        kept
    }

    /// The stream brought more than its cap.
    pub(crate) const fn truncated(&self) -> bool {
        self.truncated
    }

    /// The stream as text and, where bytes had to be replaced for that, exactly.
    pub(crate) fn into_text(self) -> (String, Option<String>) {
        text(self.kept)
    }
}

/// Cuts a stream into pieces that never split a character.
#[derive(Debug, Default)]
pub(crate) struct Splitter {
    held: Vec<u8>,
}

impl Splitter {
    /// The next piece, once there is one.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Option<Chunk> {
        self.held.extend_from_slice(bytes);
        let rest = self.held.split_off(self.held.len() - unfinished(&self.held));
        chunk(std::mem::replace(&mut self.held, rest))
    }

    /// What was held back, when the stream has ended.
    pub(crate) fn finish(&mut self) -> Option<Chunk> {
        chunk(std::mem::take(&mut self.held))
    }
}

fn chunk(bytes: Vec<u8>) -> Option<Chunk> {
    if bytes.is_empty() {
        return None;
    }
    let (data, data_base64) = text(bytes);
    Some(Chunk { data, data_base64 })
}

/// Bytes as text, and as base64 when the text is not all.
pub(crate) fn text(bytes: Vec<u8>) -> (String, Option<String>) {
    match String::from_utf8(bytes) {
        Ok(text) => (text, None),
        Err(error) => {
            let bytes = error.as_bytes();
            (
                String::from_utf8_lossy(bytes).into_owned(),
                Some(STANDARD.encode(bytes)),
            )
        }
    }
}

/// How many bytes at the end are the beginning of a character: 0 to 3.
fn unfinished(bytes: &[u8]) -> usize {
    (1..=bytes.len().min(3))
        .find(|&n| {
            let tail = &bytes[bytes.len() - n..];
            std::str::from_utf8(tail)
                .is_err_and(|error| error.valid_up_to() == 0 && error.error_len().is_none())
        })
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_cap_keeps_the_beginning() {
        let mut capture = Capture::new(4);
        assert_eq!(capture.push(b"abc"), b"abc");
        assert_eq!(capture.push(b"d"), b"d");
        assert!(!capture.truncated());
        assert_eq!(capture.push(b"e"), b"");
        assert!(capture.truncated());
        assert_eq!(capture.into_text(), ("abcd".to_owned(), None));
    }

    #[test]
    fn invalid_bytes_are_replaced_and_kept_exact() {
        let mut capture = Capture::new(100);
        capture.push(b"a\xffb");
        assert_eq!(
            capture.into_text(),
            ("a\u{fffd}b".to_owned(), Some("Yf9i".to_owned()))
        );
    }

    #[test]
    fn a_character_in_two_reads_comes_whole() {
        let mut splitter = Splitter::default();
        assert_eq!(splitter.push(&"é".as_bytes()[..1]), None);
        assert_eq!(splitter.push(&"é".as_bytes()[1..]).unwrap().data, "é");
        assert_eq!(splitter.finish(), None);
    }

    #[test]
    fn a_character_that_never_comes_is_given_up_at_the_end() {
        let mut splitter = Splitter::default();
        assert_eq!(splitter.push(b"x\xf0\x9f").unwrap().data, "x");
        assert_eq!(
            splitter.finish().unwrap().data_base64.unwrap(),
            STANDARD.encode(b"\xf0\x9f")
        );
    }

    fn pieces(bytes: &[u8], cuts: &[usize]) -> Vec<Chunk> {
        let mut splitter = Splitter::default();
        let mut at = 0;
        let mut chunks = Vec::new();
        for cut in cuts {
            let next = (at + cut).min(bytes.len());
            chunks.extend(splitter.push(&bytes[at..next]));
            at = next;
        }
        chunks.extend(splitter.push(&bytes[at..]));
        chunks.extend(splitter.finish());
        chunks
    }

    proptest! {
        #[test]
        fn text_stays_text_wherever_it_is_cut(text in ".{0,64}", cuts in prop::collection::vec(0usize..9, 0..32)) {
            let chunks = pieces(text.as_bytes(), &cuts);
            prop_assert!(chunks.iter().all(|chunk| chunk.data_base64.is_none()));
            prop_assert_eq!(chunks.into_iter().map(|chunk| chunk.data).collect::<String>(), text);
        }

        #[test]
        fn bytes_come_through_exactly(
            bytes in prop::collection::vec(any::<u8>(), 0..256),
            cuts in prop::collection::vec(0usize..9, 0..64),
        ) {
            let exact: Vec<u8> = pieces(&bytes, &cuts)
                .into_iter()
                .flat_map(|chunk| match chunk.data_base64 {
                    Some(encoded) => STANDARD.decode(encoded).unwrap(),
                    None => chunk.data.into_bytes(),
                })
                .collect();
            prop_assert_eq!(exact, bytes);
        }
    }
}
