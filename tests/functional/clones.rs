//! Clones of one snapshot are machines of their own: none shares its random numbers, its names or a wrong clock with another.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use harness::{Host, Moment, Service, Snapshots};
use serde_json::json;

const CLONES: usize = 20;
/// How far a clone's clock may be from the host's.
const CLOCK: Duration = Duration::from_millis(50);
/// OpenSSL reseeds itself by the clock: a snapshot that is older than this could hide that nothing else does.
const YOUNG: Duration = Duration::from_secs(60);

const PYTHON: &str = r"
import numpy, os, random, secrets, socket, ssl, tempfile, uuid
print('random.random', random.random())
print('uuid.uuid4', uuid.uuid4())
print('numpy.random.rand', numpy.random.rand())
print('numpy.random.default_rng', numpy.random.default_rng().random())
print('os.urandom', os.urandom(16).hex())
print('secrets', secrets.token_hex())
print('ssl.RAND_bytes', ssl.RAND_bytes(16).hex())
print('tempfile', tempfile.mktemp())
print('hostname', socket.gethostname())
";

const NODE: &str = r"
const crypto = require('crypto');
console.log('crypto.randomBytes', crypto.randomBytes(16).toString('hex'));
console.log('Math.random', Math.random());
console.log('crypto.randomUUID', crypto.randomUUID());
console.log('getRandomValues', crypto.getRandomValues(new Uint32Array(4)).join());
console.log('hostname', require('os').hostname());
";

const RUBY: &str = r#"
require 'securerandom'
require 'openssl'
puts "rand #{rand}"
puts "Random.new #{Random.new.rand}"
puts "SecureRandom #{SecureRandom.hex}"
puts "SecureRandom.uuid #{SecureRandom.uuid}"
puts "OpenSSL #{OpenSSL::Random.random_bytes(16).unpack1('H*')}"
puts "shuffle #{(0..99).to_a.shuffle.join(',')}"
"#;

/// Each `$RANDOM` has 15 bits only.
const BASH: &str = r#"
echo "RANDOM $RANDOM-$RANDOM-$RANDOM-$RANDOM"
echo "SRANDOM $SRANDOM"
echo "uuid $(</proc/sys/kernel/random/uuid)"
echo "boot_id $(</proc/sys/kernel/random/boot_id)"
echo "machine-id $(</etc/machine-id)"
echo "hostname $(hostname)"
echo "HOSTNAME $HOSTNAME"
"#;

/// What comes of that code in each clone, by what each line begins with.
fn values(service: &Service, language: &str, code: &str) -> BTreeMap<String, Vec<String>> {
    let mut values: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for _ in 0..CLONES {
        let answer = service.execute(&json!({ "lang": language, "code": code }));
        let answer = answer.took("restore", "parked").exited(0);
        for line in answer.stdout().lines() {
            let (name, value) = line.split_once(' ').expect("a name and a value");
            values.entry(name.to_owned()).or_default().push(value.to_owned());
        }
    }
    values
}

#[track_caller]
fn all_differ(language: &str, values: &BTreeMap<String, Vec<String>>, names: usize) {
    assert_eq!(values.len(), names, "{language}: {values:?}");
    for (name, values) in values {
        let different: BTreeSet<_> = values.iter().collect();
        assert_eq!(
            (values.len(), different.len()),
            (CLONES, CLONES),
            "{language} {name}: {values:?}"
        );
    }
}

#[test]
fn random_numbers_and_names_differ() {
    let host = Host::with_own_state(Snapshots::Absent);
    let service = host.serve(&["--pool", "0"]);
    service.wait_until_ready();
    let built = Instant::now();
    // At once, to be done while the snapshot is young.
    thread::scope(|scope| {
        for (language, code, names) in [("node", NODE, 5), ("python", PYTHON, 9), ("ruby", RUBY, 6)] {
            let service = &service;
            scope.spawn(move || all_differ(language, &values(service, language, code), names));
        }
    });
    let age = built.elapsed();
    let bash = values(&service, "bash", BASH);
    assert_eq!(bash["hostname"], bash["HOSTNAME"]);
    all_differ("bash", &bash, 7);
    service.stop();
    if age > YOUNG {
        harness::skip(
            "this machine took so long that the snapshot was older than a minute, which could hide a fault",
        );
    }
}

/// How far ahead of the host's clock the code's is, at least and at most, in seconds.
fn ahead(started: SystemTime, moments: &[Moment]) -> (f64, f64) {
    let seconds = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
    let samples = moments
        .iter()
        .filter(|moment| moment.event == "stdout")
        .flat_map(|moment| {
            let text = moment.data["data"].as_str().unwrap();
            text.lines()
                .map(|line| (line.parse::<f64>().unwrap(), seconds(moment.at)))
                .collect::<Vec<_>>()
        });
    // A line comes after it was written. What came fastest says most.
    let samples: Vec<_> = samples.collect();
    assert!(samples.len() > 10, "{moments:?}");
    let most_recent = samples
        .iter()
        .map(|(guest, host)| guest - host)
        .fold(f64::NEG_INFINITY, f64::max);
    let first = samples
        .iter()
        .map(|(guest, _)| *guest)
        .fold(f64::INFINITY, f64::min);
    (most_recent, first - seconds(started))
}

#[test]
fn clocks_are_right() {
    let host = Host::new();
    let service = host.serve(&["--pool", "0"]);
    service.wait_until_ready();
    let code =
        "import os, time\nfor _ in range(20):\n    os.write(1, b'%f\\n' % time.time())\n    time.sleep(0.01)";
    for _ in 0..CLONES {
        let started = SystemTime::now();
        let moments: Vec<_> = service
            .events(&json!({ "lang": "python", "code": code }))
            .collect();
        assert_eq!(moments.last().unwrap().event, "result", "{moments:?}");
        let (received, sent) = ahead(started, &moments);
        let clock = CLOCK.as_secs_f64();
        assert!(
            received.abs() <= clock,
            "{received} s ahead of the host when a line came"
        );
        assert!(sent >= -clock, "{sent} s ahead of the host when the job was sent");
    }
    service.stop();
}
