//! What the command line promises.

use harness::Host;

#[test]
fn json_begins_with_the_four_fields_and_is_one_object() {
    let host = Host::new();
    let finished = host.run("bash", "echo hi").arg("--json").finish().succeeded();
    let text = finished.stdout_text();
    let keys = [
        "{\"trace_id\":",
        "\"stdout\":\"hi\\n\"",
        "\"stderr\":\"\"",
        "\"exit_code\":0",
    ];
    let compact: String = text.split_inclusive('\n').map(str::trim_start).collect();
    let compact = compact.replace("\": ", "\":").replace('\n', "");
    let mut rest = compact.as_str();
    for key in keys {
        let at = rest
            .find(key)
            .unwrap_or_else(|| panic!("{key} is not next in {text}"));
        rest = &rest[at + key.len()..];
    }
    assert!(compact.starts_with(keys[0]), "{text}");
}

#[test]
fn the_timeline_names_every_phase() {
    let host = Host::new();
    let finished = host
        .run("bash", "echo hi")
        .cold()
        .arg("--timeline")
        .finish()
        .succeeded();
    assert_eq!(finished.stdout_text(), "hi\n");
    let timeline = finished.stderr_text().to_lowercase();
    for phase in [
        "spawn", "configur", "kernel", "init", "ready", "connect", "execute", "shutdown",
    ] {
        assert!(timeline.contains(phase), "no {phase} in {timeline}");
    }
}

#[test]
fn the_console_is_kept_when_asked_for() {
    let host = Host::new();
    let console = host.path("console.log");
    let run = host.run("bash", "echo hi").arg("--keep-console").arg(&console);
    run.finish().succeeded();
    assert!(console.exists());
}

#[test]
fn the_exit_status_is_the_code_s() {
    let host = Host::new();
    let finished = host.run("bash", "echo hi; exit 42").finish();
    assert_eq!((finished.code(), finished.stdout_text().as_str()), (42, "hi\n"));
}

#[test]
fn doctor_names_the_backend_and_why() {
    let host = Host::new();
    let finished = host.verb("doctor").finish().succeeded();
    let report = finished.stdout_text().to_lowercase();
    assert!(
        report.contains("qemu") && report.contains("kvm") && report.contains("firecracker"),
        "{report}"
    );
}

#[test]
fn help_shows_examples() {
    let host = Host::bare();
    let help = host.verb("run").arg("--help").finish().succeeded().stdout_text();
    assert!(help.contains("host-agent run --lang python"), "{help}");
}

#[test]
fn completions_for_every_shell() {
    let host = Host::bare();
    for shell in ["bash", "zsh", "fish"] {
        let script = host
            .verb("completions")
            .arg(shell)
            .finish()
            .succeeded()
            .stdout_text();
        assert!(script.contains("inject-guest-runner"), "{shell}");
    }
}
