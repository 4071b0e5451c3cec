//! What runs in a parked interpreter cannot tell, and what cannot run in one is started afresh.

use std::collections::BTreeMap;

use harness::{Answer, Host, Service};
use serde_json::{Value, json};

use crate::scripts::{self, CORPUS};

/// The job that the corpus' README describes.
fn corpus_job(language: &str, name: &str, code: &[u8], fresh: bool) -> Value {
    json!({
        "lang": language,
        "code": String::from_utf8_lossy(code),
        "args": ["one", "two words", "--three", "ünï \"q\" $x"],
        "stdin": "first line\nsecond ünï\n\nlast without newline",
        "env": { "JOB_VARIABLE": "a=b c", "EMPTY": "", "UNI": "ünï", "TZ": "Asia/Tokyo" },
        "files": scripts::beside(CORPUS, language, name),
        "timeout": 60.0,
        "fresh": fresh,
    })
}

/// All of an answer that the code has to do with, without the clone's own name.
fn outcome(answer: &Answer) -> BTreeMap<&str, Value> {
    let fields = [
        "stdout",
        "stderr",
        "stdout_base64",
        "stderr_base64",
        "exit_code",
        "termination",
        "truncated",
    ];
    let anonymous = |value: &Value| match value
        .as_str()
        .and_then(|text| Some((text, text.find("runner-")?)))
    {
        Some((text, at)) => {
            let name = text[at..]
                .split(|c: char| !c.is_ascii_alphanumeric() && c != '-')
                .next();
            text.replace(name.unwrap_or_default(), "runner").into()
        }
        None => value.clone(),
    };
    fields.map(|field| (field, anonymous(&answer.json[field]))).into()
}

/// Every script of that language in a clone, once in a parked interpreter and once in one of its own.
fn the_same_fresh_and_parked(language: &str) {
    let host = Host::new();
    let service = host.serve(&["--pool", "0"]);
    service.wait_until_ready();
    let (mut compared, mut differences) = (0, Vec::new());
    for (name, code) in scripts::of(CORPUS, language) {
        let run = |fresh| service.execute(&corpus_job(language, name, code, fresh));
        let (parked, fresh) = (run(false), run(true));
        if (parked.interpreter(), fresh.interpreter()) != ("parked", "fresh") {
            differences.push(format!(
                "{name}: {} and {}",
                parked.interpreter(),
                fresh.interpreter()
            ));
        }
        let (parked, fresh) = (outcome(&parked), outcome(&fresh));
        if parked != fresh {
            let different = parked.iter().filter(|(field, value)| fresh[*field] != **value);
            let different = different.map(|(field, value)| {
                format!("\n  {field} parked {value}\n  {field} fresh  {}", fresh[field])
            });
            differences.push(format!("{name}:{}", different.collect::<String>()));
        }
        compared += 1;
    }
    service.stop();
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    assert!(compared > 10, "{compared} scripts");
}

#[test]
fn python_corpus() {
    the_same_fresh_and_parked("python");
}

#[test]
fn node_corpus() {
    the_same_fresh_and_parked("node");
}

#[test]
fn ruby_corpus() {
    the_same_fresh_and_parked("ruby");
}

#[test]
fn bash_corpus() {
    the_same_fresh_and_parked("bash");
}

/// A service that restores a clone for each job.
fn restoring(host: &Host) -> Service {
    let service = host.serve(&["--pool", "0", "--prespawned", "0"]);
    service.wait_until_ready();
    service
}

#[test]
fn a_job_sees_no_other_parked_interpreter_and_cannot_reach_the_runner() {
    // The job's own PID 1 starts the code and reaps what it leaves.
    let jobs = [
        (
            "bash",
            r"for p in /proc/[0-9]*; do
                case $p in /proc/1 | /proc/$$) ;; *) echo $p ;; esac
            done
            kill -0 1 2>&- && echo reached
            ls /proc/1/fd >&- 2>&- && echo read
            true",
        ),
        (
            "python",
            r"
import os
print(*{p for p in os.listdir('/proc') if p.isdigit()} - {'1', str(os.getpid())}, end='')
try:
    os.kill(1, 0)
    print('reached')
except PermissionError:
    pass
",
        ),
        (
            "node",
            r"
const pids = require('fs').readdirSync('/proc').filter(name => /^\d+$/.test(name));
process.stdout.write(pids.filter(pid => pid != 1 && pid != process.pid).join());
try { process.kill(1, 0); console.log('reached'); } catch (error) { if (error.code != 'EPERM') throw error; }
",
        ),
        (
            "ruby",
            r"
print (Dir.children('/proc').grep(/\A\d+\z/) - ['1', Process.pid.to_s]).join(',')
begin Process.kill(0, 1); puts 'reached'; rescue Errno::EPERM; end
",
        ),
    ];
    let host = Host::new();
    let service = restoring(&host);
    for (language, code) in jobs {
        let answer = service.execute(&json!({ "lang": language, "code": code }));
        answer.took("restore", "parked").printed("").exited(0);
    }
    service.stop();
}

#[test]
fn what_a_job_brings_reaches_a_parked_interpreter() {
    let jobs = [
        ("bash", "cat; echo \"$1 $GREETING\"; pwd; cat data.txt; ulimit -n"),
        (
            "python",
            "import os, resource, sys\nsys.stdout.write(sys.stdin.read())\nprint(sys.argv[1], os.environ['GREETING'])\nprint(os.getcwd())\nsys.stdout.write(open('data.txt').read())\nprint(resource.getrlimit(resource.RLIMIT_NOFILE)[0])",
        ),
        (
            "node",
            "const fs = require('fs'); process.stdout.write(fs.readFileSync(0)); console.log(process.argv[2], process.env.GREETING); console.log(process.cwd()); process.stdout.write(fs.readFileSync('data.txt')); console.log(require('child_process').execSync('ulimit -n').toString().trim())",
        ),
        (
            "ruby",
            "print $stdin.read; puts \"#{ARGV[0]} #{ENV['GREETING']}\", Dir.pwd; print File.read('data.txt'); puts Process.getrlimit(:NOFILE)[0]",
        ),
    ];
    let host = Host::new();
    let service = restoring(&host);
    for (language, code) in jobs {
        let answer = service.execute(&json!({
            "lang": language,
            "code": code,
            "stdin": "from stdin\n",
            "args": ["first"],
            "env": { "GREETING": "hello" },
            "cwd": "/tmp/new/place",
            "files": [{ "path": "data.txt", "content": "from a file\n" }],
            "limits": { "open_files": 77 },
        }));
        let expected = "from stdin\nfirst hello\n/tmp/new/place\nfrom a file\n77\n";
        answer.took("restore", "parked").printed(expected).exited(0);
    }
    service.stop();
}

#[test]
fn limits_hold_in_a_parked_interpreter() {
    let host = Host::new();
    let service = restoring(&host);
    let run = |job: Value| service.execute(&job).took("restore", "parked");
    let hog = "hog = []\nwhile True: hog.append(bytearray(b'x') * (8 << 20))";
    run(json!({ "lang": "python", "code": hog, "limits": { "memory_bytes": 150_000_000 } }))
        .ended_by("oom", 137);
    run(json!({ "lang": "node", "code": "while (true);", "limits": { "cpu_ms": 1500 } }))
        .ended_by("timeout", 124);
    run(json!({ "lang": "ruby", "code": "sleep", "timeout": 1.0 })).ended_by("timeout", 124);
    run(json!({ "lang": "bash", "code": "while :; do sleep 20 & done", "limits": { "pids": 12 } }))
        .ended_by("pids_limit", 137);
    run(json!({ "lang": "python", "code": "while True: print('x' * 1000)", "limits": { "output_bytes": 5000 } }))
        .ended_by("output_limit", 137);
    service.stop();
}

#[test]
fn what_a_parked_interpreter_cannot_take_gets_a_new_one() {
    let host = Host::new();
    let service = restoring(&host);
    let fresh = |job: Value, printed: &str| {
        service
            .execute(&job)
            .took("restore", "fresh")
            .printed(printed)
            .exited(0);
    };
    let python = |code: &str, more: Value| {
        let mut job = json!({ "lang": "python", "code": code });
        job.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        job
    };
    fresh(
        python(
            "import os; print(os.environ['LANG'])",
            json!({ "env": { "LANG": "C" } }),
        ),
        "C\n",
    );
    let seeded = json!({ "env": { "PYTHONHASHSEED": "0" } });
    fresh(
        python("import sys; print(sys.flags.hash_randomization)", seeded),
        "0\n",
    );
    fresh(python("print(1)", json!({ "fresh": true })), "1\n");
    // Less than what the parked one, with what it has imported, takes already.
    fresh(
        python("print(1)", json!({ "limits": { "memory_bytes": 24 << 20 } })),
        "1\n",
    );
    let node = json!({ "lang": "node", "code": "console.log(process.execArgv.length, process.env.NODE_OPTIONS)", "env": { "NODE_OPTIONS": "--no-warnings" }, "timeout": 60.0 });
    fresh(node, "0 --no-warnings\n");
    service.stop();
}

#[test]
fn rust_is_restored_and_compiled_afresh() {
    let host = Host::new();
    let code = "fn main() { println!(\"out\") }";
    let run = host.run("rust", code).args(["--timeout", "120"]);
    run.answer().took("restore", "fresh").printed("out\n").exited(0);
}
