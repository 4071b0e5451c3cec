//! What a language's filter refuses fails with an error; what it kills for ends the job, and the answer names the call.

use harness::{Answer, Host, Service};
use serde_json::json;

/// Calls that no program needs, with their numbers on x86-64: all that `profiles/seccomp` kills for whatever the arguments.
const KILLED: &[(&str, u32)] = &[
    ("chroot", 161),
    ("fsconfig", 431),
    ("fsmount", 432),
    ("fsopen", 430),
    ("fspick", 433),
    ("mount", 165),
    ("mount_setattr", 442),
    ("move_mount", 429),
    ("open_tree", 428),
    ("pivot_root", 155),
    ("umount2", 166),
    ("setns", 308),
    ("unshare", 272),
    ("bpf", 321),
    ("delete_module", 176),
    ("finit_module", 313),
    ("init_module", 175),
    ("kexec_file_load", 320),
    ("kexec_load", 246),
    ("reboot", 169),
    ("pidfd_getfd", 438),
    ("process_vm_readv", 310),
    ("process_vm_writev", 311),
    ("add_key", 248),
    ("keyctl", 250),
    ("modify_ldt", 154),
    ("open_by_handle_at", 304),
    ("perf_event_open", 298),
    ("request_key", 249),
    ("userfaultfd", 323),
    ("acct", 163),
    ("ioperm", 173),
    ("iopl", 172),
    ("lookup_dcookie", 212),
    ("nfsservctl", 180),
    ("quotactl", 179),
    ("quotactl_fd", 443),
    ("swapoff", 168),
    ("swapon", 167),
    ("vhangup", 153),
];

/// The job printed `before` and no more, and `call` ended it.
#[track_caller]
fn killed(answer: Answer, call: &str) {
    let answer = answer.ended_by("seccomp", 137);
    assert_eq!(answer.json["termination"]["syscall"], call, "{}", answer.json);
    assert_eq!(answer.stdout(), "before\n", "{}", answer.json);
}

/// A service that restores a clone for each job.
fn restoring(host: &Host) -> Service {
    let service = host.serve(&["--pool", "0", "--prespawned", "0"]);
    service.wait_until_ready();
    service
}

fn execute(service: &Service, language: &str, code: &str, fresh: bool) -> Answer {
    let answer = service.execute(&json!({ "lang": language, "code": code, "fresh": fresh, "timeout": 60.0 }));
    answer.took("restore", if fresh { "fresh" } else { "parked" })
}

/// Python that makes a call and goes on.
fn call(number: u32, arguments: &str) -> String {
    format!(
        "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\nprint('before', flush=True)\n\
         libc.syscall({number}, {arguments})\nprint('after', flush=True)\n"
    )
}

#[test]
fn every_call_that_no_program_needs_ends_a_parked_job() {
    let host = Host::new();
    let service = restoring(&host);
    for (name, number) in KILLED {
        killed(
            execute(&service, "python", &call(*number, "0, 0, 0, 0, 0"), false),
            name,
        );
    }
    service.stop();
}

#[test]
fn arguments_decide() {
    let host = Host::new();
    let service = restoring(&host);
    for (name, number, arguments) in [
        ("clone", 56, "0x10000011, 0, 0, 0, 0"),
        ("clone", 56, "0x20000011, 0, 0, 0, 0"),
        ("personality", 135, "0x0040000"),
        ("ptrace", 101, "16, 1, 0, 0"),
        ("ptrace", 101, "0x4206, 1, 0, 0"),
    ] {
        killed(execute(&service, "python", &call(number, arguments), false), name);
    }
    service.stop();
}

#[test]
fn other_architectures_end_the_job() {
    let host = Host::new();
    let service = restoring(&host);
    killed(
        execute(&service, "python", &call(0x4000_0000 + 39, "0"), false),
        "x32:getpid",
    );
    // mov eax, 20; int 0x80; ret: getpid as programs for 32 bits make it.
    let code = r"
import ctypes, mmap
memory = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
memory.write(b'\xb8\x14\x00\x00\x00\xcd\x80\xc3')
print('before', flush=True)
ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(memory)))()
print('after', flush=True)
";
    killed(execute(&service, "python", code, false), "i386:getpid");
    service.stop();
}

/// Whoever of a job makes the call: a new interpreter, a thread, a child, a child that has cut itself loose, a program.
#[test]
fn any_part_of_a_job_ends_all_of_it() {
    let jobs = [
        ("python", "mount", call(165, "0, 0, 0, 0, 0")),
        (
            "python",
            "bpf",
            "import ctypes, threading, time\nprint('before', flush=True)\n\
             threading.Thread(target=lambda: ctypes.CDLL(None).syscall(321, 0, 0, 0)).start()\ntime.sleep(50)\nprint('after')"
                .to_owned(),
        ),
        (
            "python",
            "keyctl",
            "import ctypes, os, time\nprint('before', flush=True)\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        \
             ctypes.CDLL(None).syscall(250, 0, 0, 0, 0, 0)\n    os._exit(0)\ntime.sleep(50)\nprint('after')"
                .to_owned(),
        ),
        ("ruby", "chroot", "puts 'before'\nDir.chroot('/') rescue nil\nputs 'after'".to_owned()),
        ("ruby", "mount", "puts 'before'\nsyscall(165, 0, 0, 0, 0, 0) rescue nil\nputs 'after'".to_owned()),
        ("bash", "unshare", "echo before; unshare --user true; echo after".to_owned()),
        ("bash", "chroot", "echo before; chroot / true & wait; echo after".to_owned()),
        (
            "bash",
            "mount",
            "echo before; perl -e 'syscall(165, 0, 0, 0, 0, 0)' | cat; echo after".to_owned(),
        ),
        (
            "node",
            "unshare",
            "console.log('before'); require('child_process').spawnSync('unshare', ['--pid', 'true']); console.log('after')"
                .to_owned(),
        ),
    ];
    let host = Host::new();
    let service = restoring(&host);
    for (language, name, code) in jobs {
        for fresh in [false, true] {
            killed(execute(&service, language, &code, fresh), name);
        }
    }
    service.stop();
}

#[test]
fn rust_and_its_compiler_have_a_filter() {
    let host = Host::new();
    let code = r#"
unsafe extern "C" { fn syscall(number: i64, ...) -> i64; }
fn main() {
    println!("before");
    unsafe { syscall(323, 0_u64) };
    println!("after");
}"#;
    killed(
        host.run("rust", code).args(["--timeout", "120"]).answer(),
        "userfaultfd",
    );
    let code = r#"
const STATUS: &str = include_str!("/proc/self/status");
fn main() { for line in STATUS.lines().filter(|line| line.starts_with("Seccomp:")) { println!("{line}"); } }"#;
    let answer = host.run("rust", code).args(["--timeout", "120"]).answer();
    answer.printed("Seccomp:\t2\n").exited(0);
}

/// What programs probe for, or what could be meant well, fails and they go on.
#[test]
fn probes_are_refused_with_an_error() {
    let code = r"
import array, ctypes, errno, fcntl, os, socket
libc = ctypes.CDLL(None, use_errno=True)

def ask(number, *arguments):
    ctypes.set_errno(0)
    answer = libc.syscall(number, *arguments)
    return errno.errorcode[ctypes.get_errno()] if answer == -1 else 'made'

def open_socket(*arguments):
    try:
        socket.socket(*arguments).close()
        return 'made'
    except OSError as error:
        return errno.errorcode[error.errno]

print('io_uring', ask(425, 8, 0), ask(426, 0, 0, 0, 0, 0, 0), ask(427, 0, 0, 0, 0))
print('clone3', ask(435, 0, 0))
print('unlisted', ask(278, 0, 0, 0, 0), ask(447, 0), ask(1000))
print('ptrace', ask(101, 0, 0, 0, 0))
print('personality', ask(135, 0xffffffff), ask(135, 0))
print('syslog', ask(103, 10, 0, 0), 'sethostname', ask(170, 0, 0), 'settimeofday', ask(164, 0, 0))
print('sockets', *(open_socket(family, socket.SOCK_STREAM) for family in (socket.AF_UNIX, socket.AF_INET)))
print('families', *(open_socket(family, socket.SOCK_DGRAM) for family in (socket.AF_VSOCK, socket.AF_PACKET, socket.AF_ALG, 30, 44)))
print('netlink', *(open_socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol) for protocol in (0, 9, 12, 16)))
ours, theirs = os.openpty()
for request in (0x5412, 0x541c, 0x5423):
    try:
        fcntl.ioctl(theirs, request, array.array('i', [65]))
        print('made')
    except OSError as error:
        print(errno.errorcode[error.errno])
print('size', len(fcntl.ioctl(theirs, 0x5413, bytes(8))))
print([line.split()[1] for line in open('/proc/self/status') if line.startswith('Seccomp:')])
";
    let expected = "\
io_uring ENOSYS ENOSYS ENOSYS
clone3 ENOSYS
unlisted ENOSYS ENOSYS ENOSYS
ptrace EPERM
personality made made
syslog EPERM sethostname EPERM settimeofday EPERM
sockets made made
families EAFNOSUPPORT EAFNOSUPPORT EAFNOSUPPORT EAFNOSUPPORT EAFNOSUPPORT
netlink made EAFNOSUPPORT EAFNOSUPPORT EAFNOSUPPORT
EPERM
EPERM
EPERM
size 8
['2']
";
    let host = Host::new();
    let service = restoring(&host);
    for fresh in [false, true] {
        execute(&service, "python", code, fresh)
            .printed(expected)
            .exited(0);
    }
    service.stop();
}

/// A filter of the job's own can make it stricter, and not looser.
#[test]
fn no_second_filter_undoes_it() {
    let code = r"
import ctypes, os, struct
libc = ctypes.CDLL(None, use_errno=True)
program = ctypes.create_string_buffer(struct.pack('HBBI', 6, 0, 0, 0x7fff0000))
filter = ctypes.create_string_buffer(struct.pack('HxxxxxxP', 1, ctypes.addressof(program)))
assert libc.syscall(317, 1, 0, filter) == 0
print('before', flush=True)
libc.syscall(165, 0, 0, 0, 0, 0)
print('after', flush=True)
";
    let host = Host::new();
    let service = restoring(&host);
    killed(execute(&service, "python", code, false), "mount");
    service.stop();
}
