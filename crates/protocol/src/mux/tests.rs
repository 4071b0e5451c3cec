use super::*;

const JOB: u32 = crate::limits::JOB_PORT;

/// Two ends that are up, the guest's events of the restart already taken.
fn pair() -> (Mux, Mux) {
    let (mut host, mut guest) = (Mux::new(Side::Host), Mux::new(Side::Guest));
    host.restart(7);
    exchange(&mut host, &mut guest);
    assert_eq!(host.next_event(), Some(MuxEvent::Restarted));
    assert_eq!(guest.next_event(), Some(MuxEvent::Restarted));
    (host, guest)
}

/// A pair with one stream, known to both.
fn connected() -> (Mux, Mux, StreamId) {
    let (mut host, mut guest) = pair();
    let stream = host.open(JOB).unwrap();
    exchange(&mut host, &mut guest);
    assert_eq!(guest.next_event(), Some(MuxEvent::Opened { stream, port: JOB }));
    (host, guest, stream)
}

fn carry(from: &mut Mux, to: &mut Mux) -> bool {
    let mut any = false;
    while let Some(frame) = from.transmit() {
        to.receive(&frame).unwrap();
        any = true;
    }
    any
}

fn exchange(a: &mut Mux, b: &mut Mux) {
    while carry(a, b) | carry(b, a) {}
}

fn events(mux: &mut Mux) -> Vec<MuxEvent> {
    std::iter::from_fn(|| mux.next_event()).collect()
}

fn data(stream: StreamId, bytes: &[u8]) -> MuxEvent {
    MuxEvent::Data {
        stream,
        bytes: bytes.to_vec(),
    }
}

fn unexpected(kind: u8, stream: StreamId) -> Result<(), MuxError> {
    Err(MuxError::Unexpected { kind, stream })
}

#[test]
fn the_host_may_write_before_the_guest_is_there() {
    let mut host = Mux::new(Side::Host);
    host.restart(1);
    let stream = host.open(JOB).unwrap();
    assert_eq!(host.send(stream, b"hello"), 5);
    let held: Vec<u8> = std::iter::from_fn(|| host.transmit()).flatten().collect();

    let mut guest = Mux::new(Side::Guest);
    guest.receive(&held).unwrap();
    assert_eq!(
        events(&mut guest),
        [
            MuxEvent::Restarted,
            MuxEvent::Opened { stream, port: JOB },
            data(stream, b"hello")
        ]
    );
    assert_eq!(guest.send(stream, b"there"), 5);
    exchange(&mut host, &mut guest);
    assert_eq!(events(&mut host), [MuxEvent::Restarted, data(stream, b"there")]);
}

#[test]
fn what_is_sent_before_the_acknowledgement_is_within_the_first_window() {
    let mut host = Mux::new(Side::Host);
    host.restart(1);
    let stream = host.open(JOB).unwrap();
    host.send(stream, &[0; STREAM_BUFFER]);
    let first: usize = std::iter::from_fn(|| host.transmit())
        .map(|frame| frame.len())
        .sum();
    assert!((STREAM_WINDOW..STREAM_WINDOW + 1024).contains(&first));
    assert_eq!(host.send(stream, &[1; 2 * STREAM_BUFFER]), STREAM_BUFFER);
    assert_eq!(host.writable(stream), 0);
    assert_eq!(host.transmit(), None);
}

#[test]
fn nothing_is_sent_or_believed_before_a_restart() {
    let mut guest = Mux::new(Side::Guest);
    guest.receive(b"\0\x01garbage\0\xff").unwrap();
    guest.receive(&encode(OPEN, 0, 0, &[&[0; 4]])).unwrap();
    assert_eq!((guest.next_event(), guest.transmit()), (None, None));
    assert_eq!(Mux::new(Side::Host).open(JOB), Err(MuxError::NotReady));
    assert_eq!(pair().1.open(JOB), Err(MuxError::NotReady));
}

#[test]
fn before_the_acknowledgement_the_host_believes_nothing() {
    let mut host = Mux::new(Side::Host);
    host.restart(7);
    let stream = host.open(JOB).unwrap();
    while host.transmit().is_some() {}
    for frame in [
        encode(DATA, stream, 7, &[b"early"]),
        encode(DATA, stream, 6, &[b"old"]),
        encode(RESTART_ACK, 0, 6, &[]),
        encode(99, stream, 7, &[]),
        vec![9, 9, 0],
        vec![1; 2 * MAX_ENCODED],
    ] {
        host.receive(&frame).unwrap();
        assert_eq!(host.next_event(), None);
    }
    // The delimiter ends what did not decode.
    host.receive(&[0]).unwrap();
    host.receive(&encode(RESTART_ACK, 0, 7, &[])).unwrap();
    host.receive(&encode(DATA, stream, 6, &[b"old"])).unwrap();
    host.receive(&encode(DATA, stream, 7, &[b"new"])).unwrap();
    assert_eq!(events(&mut host), [MuxEvent::Restarted, data(stream, b"new")]);
}

#[test]
fn a_restart_drops_streams_and_frames_of_older_generations() {
    let (mut host, mut guest, stream) = connected();
    guest.send(stream, b"old");
    let old = guest.transmit().unwrap();
    host.restart(8);
    assert_eq!(host.next_event(), None);
    assert_eq!(host.send(stream, b"lost"), 0);
    host.receive(&old).unwrap();
    exchange(&mut host, &mut guest);
    assert_eq!(events(&mut guest), [MuxEvent::Restarted]);
    assert_eq!(guest.send(stream, b"lost"), 0);
    host.receive(&old).unwrap();
    assert_eq!(events(&mut host), [MuxEvent::Restarted]);
}

#[test]
fn the_guest_excuses_a_cut_frame_only_before_a_restart() {
    let (mut host, mut guest, stream) = connected();
    host.send(stream, b"0123456789");
    let frame = host.transmit().unwrap();
    guest.receive(&frame[..frame.len() / 2]).unwrap();
    host.restart(8);
    let next = host.open(JOB).unwrap();
    exchange(&mut host, &mut guest);
    assert_eq!(
        events(&mut guest),
        [
            MuxEvent::Restarted,
            MuxEvent::Opened {
                stream: next,
                port: JOB
            }
        ]
    );

    guest.receive(&[9, 9, 0]).unwrap();
    host.send(next, b"x");
    let frame = host.transmit().unwrap();
    assert_eq!(guest.receive(&frame), Err(MuxError::Malformed));
    assert_eq!((guest.next_event(), guest.transmit()), (None, None));
    host.restart(9);
    exchange(&mut host, &mut guest);
    assert_eq!(events(&mut guest), [MuxEvent::Restarted]);
}

#[test]
fn restarts_may_be_cut_too() {
    let (mut host, mut guest, _) = connected();
    for generation in 8..12 {
        host.restart(generation);
        let frame = host.transmit().unwrap();
        guest.receive(&frame[..frame.len() - 2]).unwrap();
    }
    host.restart(12);
    exchange(&mut host, &mut guest);
    assert_eq!(events(&mut guest), [MuxEvent::Restarted]);
    assert_eq!(events(&mut host), [MuxEvent::Restarted]);
}

#[test]
fn what_has_no_end_is_not_kept() {
    for (side, bytes) in [(Side::Host, [1; 4096]), (Side::Guest, [255; 4096])] {
        let mut mux = Mux::new(side);
        for _ in 0..1000 {
            mux.receive(&bytes).unwrap();
        }
        assert!(mux.partial.capacity() <= 2 * MAX_ENCODED);
    }
}

#[test]
fn faults_of_the_guest_end_the_link() {
    let faults = |stream| {
        let over = vec![0; STREAM_WINDOW / 4 + 1];
        [
            (vec![9, 9, 0], Err(MuxError::Malformed)),
            (encode(DATA, stream, 7, &[]), Err(MuxError::Malformed)),
            (encode(DATA, stream, 7, &[&over]), Err(MuxError::Malformed)),
            (vec![1; MAX_ENCODED + 1], Err(MuxError::TooLong)),
            (encode(CREDIT, stream, 7, &[&[1; 3]]), Err(MuxError::Malformed)),
            (encode(CLOSE, stream, 7, &[&[1]]), Err(MuxError::Malformed)),
            (encode(RESET, stream, 7, &[&[1]]), Err(MuxError::Malformed)),
            (
                encode(CREDIT, stream, 7, &[&1_u32.to_be_bytes()]),
                Err(MuxError::OverWindow { stream }),
            ),
            (
                encode(CREDIT, stream, 7, &[&u32::MAX.to_be_bytes()]),
                Err(MuxError::OverWindow { stream }),
            ),
            (encode(99, stream, 7, &[]), unexpected(99, stream)),
            (encode(RESTART, 0, 7, &[]), unexpected(RESTART, 0)),
            (encode(RESTART_ACK, 0, 7, &[]), unexpected(RESTART_ACK, 0)),
            (encode(OPEN, 9, 7, &[&[0; 4]]), unexpected(OPEN, 9)),
            (encode(DATA, 9, 7, &[b"x"]), unexpected(DATA, 9)),
            (encode(DATA, 200, 7, &[b"x"]), unexpected(DATA, 200)),
            (encode(RESET, 9, 7, &[]), unexpected(RESET, 9)),
        ]
    };
    for number in 0..faults(0).len() {
        let (mut host, _guest, stream) = connected();
        let (bytes, expected) = faults(stream)[number].clone();
        assert_eq!(host.receive(&bytes), expected, "fault {number}");
        assert_eq!(host.send(stream, b"x"), 0);
        assert_eq!((host.next_event(), host.transmit()), (None, None));
        assert_eq!(host.open(JOB), Err(MuxError::NotReady));
        // Nothing more is believed, and a restart mends it.
        host.receive(&encode(DATA, stream, 7, &[b"x"])).unwrap();
        host.receive(&[0]).unwrap();
        host.restart(8);
        exchange(&mut host, &mut pair().1);
        assert_eq!(events(&mut host), [MuxEvent::Restarted]);
    }
}

#[test]
fn a_frame_for_a_stream_whose_open_is_still_here_is_out_of_place() {
    let (mut host, _guest) = pair();
    let stream = host.open(JOB).unwrap();
    let early = encode(DATA, stream, 7, &[b"x"]);
    assert_eq!(host.receive(&early), unexpected(DATA, stream));
}

#[test]
fn data_beyond_the_credit_is_refused_however_it_is_cut() {
    for piece in [1, 1000, MAX_STREAM_DATA] {
        let (mut host, _guest, stream) = connected();
        let frame = encode(DATA, stream, 7, &[&vec![1; piece]]);
        for _ in 0..STREAM_WINDOW / piece {
            host.receive(&frame).unwrap();
        }
        let rest = encode(DATA, stream, 7, &[&vec![1; STREAM_WINDOW % piece + 1]]);
        assert_eq!(host.receive(&rest), Err(MuxError::OverWindow { stream }));
    }
}

#[test]
fn small_frames_cost_one_event() {
    let (mut host, _guest, stream) = connected();
    for _ in 0..STREAM_WINDOW {
        host.receive(&encode(DATA, stream, 7, &[b"x"])).unwrap();
    }
    assert_eq!(events(&mut host), [data(stream, &[b'x'; STREAM_WINDOW])]);
}

#[test]
fn credit_comes_back_in_steps_and_never_more_than_was_read() {
    let (mut host, mut guest, stream) = connected();
    host.send(stream, &[1; STREAM_BUFFER]);
    exchange(&mut host, &mut guest);
    assert_eq!(host.send(stream, &[2; STREAM_BUFFER]), STREAM_BUFFER);
    assert_eq!(host.transmit(), None);

    guest.consumed(stream, CREDIT_STEP); // Not told yet, so not read either.
    assert_eq!(guest.transmit(), None);
    assert_eq!(events(&mut guest).len(), 1);
    guest.consumed(stream, CREDIT_STEP - 1);
    assert_eq!(guest.transmit(), None);
    guest.consumed(stream, usize::MAX - CREDIT_STEP);
    carry(&mut guest, &mut host);
    exchange(&mut host, &mut guest);
    assert_eq!(events(&mut guest), [data(stream, &[2; STREAM_WINDOW])]);
}

#[test]
fn a_reader_that_takes_everything_never_stalls_the_writer() {
    let (mut host, mut guest, stream) = connected();
    let (mut sent, mut read) = (0, 0);
    while read < 1 << 20 {
        sent += host.send(stream, &[3; 777][..777.min((1 << 20) - sent)]);
        exchange(&mut host, &mut guest);
        let before = read;
        for event in events(&mut guest) {
            let MuxEvent::Data { bytes, .. } = event else {
                panic!("{event:?}")
            };
            read += bytes.len();
            guest.consumed(stream, bytes.len());
        }
        assert!(read > before);
    }
    assert_eq!(read, sent);
}

#[test]
fn close_comes_after_the_data_and_ends_one_direction() {
    let (mut host, mut guest, stream) = connected();
    host.send(stream, b"request");
    host.close(stream);
    assert_eq!(host.send(stream, b"more"), 0);
    assert_eq!(host.writable(stream), 0);
    exchange(&mut host, &mut guest);
    assert_eq!(
        events(&mut guest),
        [data(stream, b"request"), MuxEvent::Closed { stream }]
    );
    guest.send(stream, b"response");
    guest.close(stream);
    exchange(&mut host, &mut guest);
    assert_eq!(
        events(&mut host),
        [data(stream, b"response"), MuxEvent::Closed { stream }]
    );
    exchange(&mut host, &mut guest);
    assert!(host.streams.is_empty() && guest.streams.is_empty());
    assert_eq!((events(&mut host), events(&mut guest)), (vec![], vec![]));
}

#[test]
fn data_after_close_is_out_of_place() {
    let (mut host, _guest, stream) = connected();
    host.receive(&encode(CLOSE, stream, 7, &[])).unwrap();
    let late = encode(DATA, stream, 7, &[b"x"]);
    assert_eq!(host.receive(&late), unexpected(DATA, stream));
}

#[test]
fn a_second_close_and_anything_after_reset_are_out_of_place() {
    let (mut host, _guest, stream) = connected();
    host.receive(&encode(CLOSE, stream, 7, &[])).unwrap();
    let again = encode(CLOSE, stream, 7, &[]);
    assert_eq!(host.receive(&again), unexpected(CLOSE, stream));

    for kind in [CLOSE, RESET] {
        let (mut host, _guest, stream) = connected();
        host.receive(&encode(RESET, stream, 7, &[])).unwrap();
        let late = encode(kind, stream, 7, &[]);
        assert_eq!(host.receive(&late), unexpected(kind, stream));
    }
}

#[test]
fn after_a_reset_late_frames_are_ignored_and_the_id_waits_for_the_peer() {
    let (mut host, mut guest, stream) = connected();
    guest.send(stream, b"late");
    guest.close(stream);
    host.send(stream, b"never sent");
    host.reset(stream);
    assert_eq!(host.send(stream, b"x"), 0);
    let reset = host.transmit().unwrap();
    assert_eq!(host.transmit(), None);

    carry(&mut guest, &mut host); // Data and Close crossed the reset.
    assert_eq!(host.next_event(), None);
    assert!(host.streams.contains_key(&stream));
    guest.receive(&reset).unwrap();
    assert_eq!(events(&mut guest), [MuxEvent::Reset { stream }]);
    exchange(&mut host, &mut guest);
    assert!(host.streams.is_empty() && guest.streams.is_empty());
    assert_eq!(host.next_event(), None);
}

#[test]
fn resets_may_cross() {
    let (mut host, mut guest, stream) = connected();
    host.reset(stream);
    guest.reset(stream);
    let (from_host, from_guest) = (host.transmit().unwrap(), guest.transmit().unwrap());
    host.receive(&from_guest).unwrap();
    guest.receive(&from_host).unwrap();
    assert!(host.streams.is_empty() && guest.streams.is_empty());
    assert_eq!((events(&mut host), events(&mut guest)), (vec![], vec![]));
}

#[test]
fn a_reset_of_the_peer_comes_after_its_data_and_silences_the_stream() {
    let (mut host, mut guest, stream) = connected();
    guest.send(stream, b"last words");
    carry(&mut guest, &mut host);
    guest.reset(stream);
    host.send(stream, b"never sent");
    carry(&mut guest, &mut host);
    assert_eq!(host.transmit(), None); // Not answered before it was told.
    assert_eq!(
        events(&mut host),
        [data(stream, b"last words"), MuxEvent::Reset { stream }]
    );
    exchange(&mut host, &mut guest);
    assert!(host.streams.is_empty() && guest.streams.is_empty());
}

#[test]
fn a_reset_takes_back_events_that_were_not_told() {
    let (mut host, mut guest, stream) = connected();
    guest.send(stream, b"unread");
    guest.close(stream);
    carry(&mut guest, &mut host);
    host.reset(stream);
    assert_eq!(host.next_event(), None);

    let (mut host, mut guest, stream) = connected();
    guest.reset(stream);
    carry(&mut guest, &mut host);
    host.reset(stream);
    exchange(&mut host, &mut guest);
    assert_eq!((events(&mut host), events(&mut guest)), (vec![], vec![]));
    assert!(host.streams.is_empty() && guest.streams.is_empty());
}

#[test]
fn a_stream_that_the_guest_never_heard_of_is_forgotten_at_once() {
    let (mut host, _guest) = pair();
    let stream = host.open(JOB).unwrap();
    host.reset(stream);
    assert_eq!(host.transmit(), None);
    assert!(host.streams.is_empty());
}

#[test]
fn an_id_is_free_only_when_both_have_let_go() {
    let (mut host, mut guest) = pair();
    let all: Vec<_> = (0..MAX_STREAMS).map(|_| host.open(JOB).unwrap()).collect();
    assert_eq!(host.open(JOB), Err(MuxError::NoFreeStream));
    exchange(&mut host, &mut guest);
    assert_eq!(events(&mut guest).len(), all.len());
    host.reset(all[5]);
    carry(&mut host, &mut guest);
    assert_eq!(host.open(JOB), Err(MuxError::NoFreeStream));
    assert_eq!(events(&mut guest).len(), 1);
    exchange(&mut host, &mut guest);
    assert_eq!(host.open(JOB), Ok(all[5]));
}

#[test]
fn ids_are_used_in_turn() {
    let (mut host, _guest) = pair();
    for round in 0..3 * MAX_STREAMS {
        let stream = host.open(JOB).unwrap();
        assert_eq!(stream, round % MAX_STREAMS);
        host.reset(stream);
    }
}

#[test]
fn frames_take_turns() {
    let (mut host, mut guest) = pair();
    let streams = [(); 3].map(|()| host.open(JOB).unwrap());
    exchange(&mut host, &mut guest);
    for stream in streams {
        host.send(stream, &[0; STREAM_BUFFER]);
    }
    let order: Vec<_> = std::iter::from_fn(|| host.transmit())
        .map(|frame| cobs::decode_vec(&frame).unwrap()[1])
        .collect();
    assert_eq!(order.len(), 3 * STREAM_WINDOW / MAX_STREAM_DATA);
    for round in order.chunks(3) {
        assert!(streams.iter().all(|stream| round.contains(stream)), "{order:?}");
    }
}

#[test]
fn events_take_turns() {
    let (mut host, mut guest) = pair();
    let streams = [(); 3].map(|()| host.open(JOB).unwrap());
    for stream in streams {
        host.send(stream, b"x");
    }
    exchange(&mut host, &mut guest);
    let events = events(&mut guest);
    for stream in streams {
        assert!(events[..3].contains(&MuxEvent::Opened { stream, port: JOB }));
        assert!(events[3..].contains(&data(stream, b"x")));
    }
}

/// The pure form of the promise that a flooded stream does not hold up another: at most one frame of it goes first.
#[test]
fn a_flooded_stream_delays_another_by_less_than_two_frames() {
    for flood in [0, 1] {
        for skipped in 0..3 {
            flood_beside_a_message(flood, 1 - flood, skipped);
        }
    }
}

/// The message comes when `skipped` frames of the flood have gone.
fn flood_beside_a_message(flood: StreamId, other: StreamId, skipped: usize) {
    let (mut host, mut guest) = pair();
    assert_eq!((host.open(JOB), host.open(JOB)), (Ok(0), Ok(1)));
    exchange(&mut host, &mut guest);
    events(&mut guest);
    for _ in 0..50 {
        guest.send(flood, &[0xaa; STREAM_BUFFER]);
        for _ in 0..skipped {
            host.receive(&guest.transmit().unwrap()).unwrap();
        }
        events(&mut host);
        guest.send(other, b"message");
        let mut before = 0;
        loop {
            let frame = guest.transmit().unwrap();
            host.receive(&frame).unwrap();
            if events(&mut host).contains(&data(other, b"message")) {
                break;
            }
            before += frame.len();
        }
        assert!(before <= MAX_ENCODED + 1, "{before} bytes went first");
        host.consumed(flood, STREAM_WINDOW);
        host.consumed(other, STREAM_WINDOW);
        carry(&mut host, &mut guest);
    }
}

#[test]
fn frames_are_bounded_and_hold_no_delimiter() {
    for payload in [
        &[0_u8; MAX_STREAM_DATA],
        &[1; MAX_STREAM_DATA],
        &[255; MAX_STREAM_DATA],
    ] {
        for length in [1, 247, 248, 249, 250, 502, 503, 504, MAX_STREAM_DATA] {
            let frame = encode(DATA, 1, 7, &[&payload[..length]]);
            let (delimiter, encoded) = frame.split_last().unwrap();
            assert!(*delimiter == 0 && !encoded.contains(&0) && encoded.len() <= MAX_ENCODED);
            assert_eq!(cobs::decode_vec(encoded).unwrap()[HEADER..], payload[..length]);
        }
    }
}
