//! What goes in with a job, and what it sees of it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use harness::Host;

#[test]
fn stdin_arguments_environment_and_directory_reach_the_code() {
    let host = Host::new();
    let code = "cat; echo; echo \"$1|$2\"; echo \"$GREETING\"; pwd";
    let answer = host
        .run("bash", code)
        .args(["--stdin", "line of input"])
        .args(["--arg", "first", "--arg", "second one"])
        .args(["--env", "GREETING=hello = world"])
        .args(["--cwd", "/tmp/somewhere/new"])
        .answer();
    answer
        .printed("line of input\nfirst|second one\nhello = world\n/tmp/somewhere/new\n")
        .exited(0);
}

#[test]
fn files_go_in_and_come_back() {
    let host = Host::new();
    let bytes: Vec<u8> = (0..=255).cycle().take(5000).collect();
    let input = host.file("input.bin", &bytes);
    let code =
        "wc -c <data/in.bin; tac -s '' data/in.bin >/dev/null; cp data/in.bin out.bin; echo text >out.txt";
    let answer = host
        .run("bash", code)
        .arg("--file")
        .arg(format!("{}:data/in.bin", input.display()))
        .args([
            "--collect",
            "out.bin",
            "--collect",
            "out.txt",
            "--collect",
            "none",
        ])
        .answer()
        .exited(0);
    assert_eq!(answer.stdout(), "5000\n");
    let files = answer.json["files"].as_array().expect("files");
    assert_eq!(files.len(), 3);
    assert_eq!(
        STANDARD
            .decode(files[0]["content_base64"].as_str().unwrap())
            .unwrap(),
        bytes
    );
    assert_eq!(files[1]["content"], "text\n");
    assert_eq!(files[2]["path"], "none");
    assert!(files[2].get("content").is_none() && files[2].get("content_base64").is_none());
}

#[test]
fn output_that_is_not_text_is_exact_in_base64() {
    let host = Host::new();
    let answer = host.run("bash", r"printf 'a\xff\xfeb\0c'").answer().exited(0);
    assert_eq!(answer.stdout(), "a\u{fffd}\u{fffd}b\0c");
    let exact = answer.json["stdout_base64"].as_str().expect("the exact bytes");
    assert_eq!(STANDARD.decode(exact).unwrap(), b"a\xff\xfeb\0c");
    assert!(answer.json.get("stderr_base64").is_none());
}

#[test]
fn code_comes_from_a_file_or_standard_input() {
    let host = Host::new();
    let file = host.file("job.py", "print('from a file')");
    let from_file = host.verb("run").args(["--lang", "python"]).arg(file);
    from_file.answer().printed("from a file\n").exited(0);
    let from_stdin = host.verb("run").args(["--lang", "python"]);
    let from_stdin = from_stdin.stdin("print('from standard input')");
    from_stdin.answer().printed("from standard input\n").exited(0);
}

#[test]
fn memory_and_processors_are_what_was_asked_for() {
    let host = Host::new();
    let code = "nproc; awk '/MemTotal/ { print int($2 / 1024) }' /proc/meminfo";
    let answer = host
        .run("bash", code)
        .args(["--vcpus", "2", "--memory", "300"])
        .answer()
        .exited(0);
    let numbers: Vec<u32> = answer
        .stdout()
        .lines()
        .map(|line| line.parse().unwrap())
        .collect();
    assert_eq!(numbers[0], 2);
    assert!((200..=300).contains(&numbers[1]), "{} MiB", numbers[1]);
}
