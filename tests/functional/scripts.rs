//! Scripts of the source tree, which the test binary carries: `<language>/<name>.<kind>`, with what is to be next to it in
//! `<language>/<name>.files/`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// Paths, and what is there.
pub(crate) type Files = &'static [(&'static str, &'static [u8])];

/// `corpus/`; its README says how they are run.
pub(crate) const CORPUS: Files = include!(concat!(env!("OUT_DIR"), "/corpus.rs"));
/// `tours/`; their README says what they are.
pub(crate) const TOURS: Files = include!(concat!(env!("OUT_DIR"), "/tours.rs"));

/// The names and code of one language's scripts.
pub(crate) fn of(files: Files, language: &str) -> impl Iterator<Item = (&'static str, &'static [u8])> {
    files.iter().filter_map(move |(path, code)| {
        let name = path.strip_prefix(language)?.strip_prefix('/')?;
        (!name.contains('/')).then_some((name, *code))
    })
}

/// What a job brings for that script besides its code.
pub(crate) fn beside(files: Files, language: &str, name: &str) -> Vec<Value> {
    let (stem, _) = name.rsplit_once('.').expect("a script's name ends in its kind");
    let beside = format!("{language}/{stem}.files/");
    let files = files.iter().filter_map(|(path, content)| {
        let path = path.strip_prefix(&beside)?;
        Some(json!({ "path": path, "content_base64": STANDARD.encode(content) }))
    });
    files.collect()
}
