//! Every language prints, complains and exits.

use harness::Host;

/// The code prints `out`, complains `err`, and exits with 3.
fn speaks(language: &str, code: &str) {
    let host = Host::new();
    let answer = host.run(language, code).args(["--timeout", "120"]).answer();
    answer.printed("out\n").complained("err").exited(3);
}

#[test]
fn bash() {
    speaks("bash", "echo out; echo err >&2; exit 3");
}

#[test]
fn python() {
    speaks(
        "python",
        "import sys\nprint('out')\nprint('err', file=sys.stderr)\nsys.exit(3)",
    );
}

#[test]
fn node() {
    speaks(
        "node",
        "console.log('out'); console.error('err'); process.exit(3)",
    );
}

#[test]
fn ruby() {
    speaks("ruby", "puts 'out'\nwarn 'err'\nexit 3");
}

#[test]
fn rust() {
    speaks(
        "rust",
        r#"fn main() { println!("out"); eprintln!("err"); std::process::exit(3) }"#,
    );
}

#[test]
fn rust_that_does_not_compile_gives_the_compiler_s_words_and_status() {
    let host = Host::new();
    let code = "fn main() { let number: u32 = \"text\"; }";
    let answer = host.run("rust", code).args(["--timeout", "120"]).answer();
    answer.printed("").complained("mismatched types").exited(1);
}

/// The exit status is taken when the main process asks to exit: no other's may be taken for it, and none may be lost.
#[test]
fn however_the_main_process_ends() {
    let host = Host::new();
    let thread =
        "import os, threading, time\nthreading.Thread(target=lambda: os._exit(7)).start()\ntime.sleep(600)";
    host.run("python", thread).answer().printed("").exited(7);
    let children = "(exit 5); echo $?; sleep 600 & echo out; exit 300";
    host.run("bash", children).answer().printed("5\nout\n").exited(44);
    let replaced = "exec python3 -c 'raise SystemExit(4)'";
    host.run("bash", replaced).answer().printed("").exited(4);
    // What the C library still holds is written at the very end.
    let late = "import ctypes\nctypes.CDLL(None).printf(b'late')\nraise SystemExit(9)";
    host.run("python", late).answer().printed("late").exited(9);
}

#[test]
fn python_has_numpy() {
    let host = Host::new();
    let code = "import numpy\nprint(numpy.arange(10).sum())";
    host.run("python", code).answer().printed("45\n").exited(0);
}

#[test]
fn a_job_is_not_root_and_sees_no_other_process() {
    let host = Host::new();
    let code = "id -u; ls -d /proc/[0-9]* | wc -l; cat /proc/1/comm";
    let answer = host.run("bash", code).answer().exited(0);
    let lines: Vec<_> = answer.stdout().lines().collect();
    let &[user, processes, first] = lines.as_slice() else {
        panic!("{}", answer.json)
    };
    assert_ne!(user, "0");
    assert!(processes.parse::<u32>().unwrap() < 10, "{processes} processes");
    assert_ne!(first, "guest-runner");
}
