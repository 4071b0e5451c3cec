//! Many machines, one after the other and at once.

use std::thread;

use harness::Host;

fn echoes(host: &Host, word: &str) {
    let code = format!("echo {word}");
    host.run("bash", &code)
        .answer()
        .printed(&format!("{word}\n"))
        .exited(0);
}

#[test]
fn fifty_one_after_the_other() {
    let host = Host::new();
    for number in 0..50 {
        echoes(&host, &format!("job-{number}"));
        assert_eq!(host.left_behind(), [""; 0], "after job {number}");
    }
}

#[test]
fn four_times_ten_at_once() {
    let host = Host::new();
    thread::scope(|scope| {
        for lane in 0..4 {
            let host = &host;
            scope.spawn(move || {
                for number in 0..10 {
                    echoes(host, &format!("lane-{lane}-job-{number}"));
                }
            });
        }
    });
}
