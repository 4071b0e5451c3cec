//! Programs: a profile as BPF.
//!
//! ```text
//! architecture ─► number ─► a search in halves over runs of calls with one decision ─► an action
//!                                                                               └────► seccompiler's program for the
//!                                                                                      arguments ─► one of two actions
//! ```
//!
//! seccompiler knows two actions a filter and compares a number with one call after the other. Here are five actions and more
//! than three hundred calls, and an emulated kernel runs the program for every number there is when it is installed, to
//! remember what is always allowed. So only what depends on arguments is seccompiler's, and the way there is a search.

use std::collections::BTreeMap;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch, sock_filter};
use syscalls::x86_64::Sysno;

use crate::profile::{Action, Arguments, Decision, Error, Profile};

/// A program for the kernel (seccomp(2)).
pub type Program = BpfProgram;

/// What a program returns for a call that ends the job: tell whoever holds the listener, who is to kill it.
pub const KILL: u32 = libc::SECCOMP_RET_USER_NOTIF;

/// What a program returns for `exit_group`, where it is allowed: the same, told apart by its lower half, which the kernel
/// does not look at.
pub const EXIT: u32 = libc::SECCOMP_RET_USER_NOTIF | 1;

/// `AUDIT_ARCH_X86_64` of <linux/audit.h>.
const NATIVE: u32 = 0xc000_003e;
/// Numbers of x32, which have a bit of their own: `__X32_SYSCALL_BIT` of <asm/unistd.h>.
const X32: std::ops::Range<u32> = 0x4000_0000..0x8000_0000;

// Offsets in `struct seccomp_data` and the instructions that there are (<linux/seccomp.h>, <linux/bpf_common.h>).
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const LOAD: u16 = 0x20;
const JUMP: u16 = 0x05;
const IF_EQUAL: u16 = 0x15;
const IF_NOT_LESS: u16 = 0x35;
const RETURN: u16 = 0x06;

/// Compiles `profile` for x86-64. Calls in another architecture's way end the job.
///
/// # Errors
/// What of it cannot be compiled.
pub fn compile(profile: &Profile) -> Result<Program, Error> {
    let mut program = vec![
        step(LOAD, ARCHITECTURE),
        branch(IF_EQUAL, NATIVE, 1, 0),
        step(RETURN, KILL),
        step(LOAD, NUMBER),
    ];
    program.extend(search(&runs(profile)?));
    Ok(program)
}

/// Numbers from `start` up to the next run, and what happens to them.
struct Run {
    start: u32,
    /// Reached with the number loaded; ends in a return on every path.
    end: Program,
}

fn runs(profile: &Profile) -> Result<Vec<Run>, Error> {
    let unlisted = || always(returned(profile.default_action()));
    let mut ends: BTreeMap<u32, Program> = Sysno::iter()
        .map(|call| Ok((call.id().cast_unsigned(), end(call, &profile.decision(call))?)))
        .collect::<Result<_, _>>()?;
    // What is between calls, and after the last, is none.
    let after: Vec<u32> = ends.keys().map(|number| number + 1).collect();
    for number in after.into_iter().chain([0, X32.end]) {
        ends.entry(number).or_insert_with(unlisted);
    }
    ends.insert(X32.start, always(KILL));
    let mut runs: Vec<Run> = Vec::new();
    for (start, end) in ends {
        if runs.last().is_none_or(|run| run.end != end) {
            runs.push(Run { start, end });
        }
    }
    Ok(runs)
}

/// What follows once a call is known.
fn end(call: Sysno, decision: &Decision) -> Result<Program, Error> {
    match &decision.arguments {
        Some(arguments) => depends(call, decision.action, arguments),
        None if call == Sysno::exit_group && decision.action == Action::Allow => Ok(always(EXIT)),
        None => Ok(always(returned(decision.action))),
    }
}

fn always(value: u32) -> Program {
    vec![step(RETURN, value)]
}

/// seccompiler's program for one call: complete in itself, and so at home anywhere in another.
fn depends(call: Sysno, action: Action, arguments: &Arguments) -> Result<Program, Error> {
    let rules = BTreeMap::from([(call.id().into(), arguments.any.clone())]);
    let compiled = SeccompFilter::new(
        rules,
        stand_in(arguments.otherwise),
        stand_in(action),
        TargetArch::x86_64,
    )
    .and_then(Program::try_from);
    let mut program = compiled.map_err(|source| Error::Compile {
        name: call.name().to_owned(),
        source,
    })?;
    let placeholder = u32::from(stand_in(Action::Kill));
    for step in &mut program {
        if step.code == RETURN && step.k == placeholder {
            step.k = KILL;
        }
    }
    Ok(program)
}

/// seccompiler cannot notify, so tracing, which it can and no profile does, stands in for that.
fn stand_in(action: Action) -> SeccompAction {
    match action {
        Action::Allow => SeccompAction::Allow,
        Action::Kill => SeccompAction::Trace(0),
        Action::NotPermitted => SeccompAction::Errno(libc::EPERM.cast_unsigned()),
        Action::NotImplemented => SeccompAction::Errno(libc::ENOSYS.cast_unsigned()),
        Action::NoAddressFamily => SeccompAction::Errno(libc::EAFNOSUPPORT.cast_unsigned()),
    }
}

fn returned(action: Action) -> u32 {
    match action {
        Action::Kill => KILL,
        other => stand_in(other).into(),
    }
}

/// Goes to the run that the loaded number is in.
fn search(runs: &[Run]) -> Program {
    match runs {
        [] => always(KILL),
        [run] => run.end.clone(),
        _ => {
            let (below, above) = runs.split_at(runs.len() / 2);
            let pivot = above[0].start;
            let (below, above) = (search(below), search(above));
            // A branch reaches 255 instructions, a jump any.
            let mut program = match u8::try_from(below.len()) {
                Ok(distance) => vec![branch(IF_NOT_LESS, pivot, distance, 0)],
                Err(_) => vec![
                    branch(IF_NOT_LESS, pivot, 0, 1),
                    step(JUMP, u32::try_from(below.len()).unwrap_or(u32::MAX)),
                ],
            };
            program.extend(below);
            program.extend(above);
            program
        }
    }
}

const fn step(code: u16, k: u32) -> sock_filter {
    branch(code, k, 0, 0)
}

/// Skips `jt` instructions when the comparison holds, and `jf` when it does not.
const fn branch(code: u16, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::*;

    const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
    const I386: u32 = 0x4000_0003;

    fn directory() -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../profiles/seccomp")
    }

    /// Every language's profile, by file name.
    fn profiles() -> Vec<(String, Profile)> {
        let files = fs::read_dir(directory()).unwrap();
        let paths = files.map(|file| file.unwrap().path());
        paths
            .map(|path| {
                let name = path.file_stem().unwrap().to_string_lossy().into_owned();
                (name, Profile::read(&path).unwrap().0)
            })
            .collect()
    }

    /// What the kernel would do: the returned value, and how many instructions it took.
    fn run(program: &Program, architecture: u32, number: u32, args: [u64; 6]) -> (u32, usize) {
        let load = |offset: u32| match offset {
            NUMBER => number,
            ARCHITECTURE => architecture,
            _ => {
                let arg = args[usize::try_from((offset - 16) / 8).unwrap()];
                if offset.is_multiple_of(8) {
                    arg as u32
                } else {
                    (arg >> 32) as u32
                }
            }
        };
        let (mut at, mut value) = (0, 0);
        for count in 1.. {
            let step = &program[at];
            let holds = match step.code {
                LOAD => {
                    value = load(step.k);
                    None
                }
                0x54 => {
                    value &= step.k;
                    None
                }
                JUMP => {
                    at += step.k as usize;
                    None
                }
                IF_EQUAL => Some(value == step.k),
                IF_NOT_LESS => Some(value >= step.k),
                0x25 => Some(value > step.k),
                RETURN => return (step.k, count),
                code => panic!("instruction {code:#x}"),
            };
            let skipped = holds.map_or(0, |holds| if holds { step.jt } else { step.jf });
            at += 1 + usize::from(skipped);
        }
        unreachable!()
    }

    fn returns(program: &Program, call: Sysno, args: &[u64]) -> u32 {
        let mut all = [0; 6];
        all[..args.len()].copy_from_slice(args);
        run(program, NATIVE, call.id().cast_unsigned(), all).0
    }

    fn errno(number: i32) -> u32 {
        libc::SECCOMP_RET_ERRNO | number.cast_unsigned()
    }

    #[test]
    fn there_is_one_for_each_language_on_one_base() {
        let mut names: Vec<_> = profiles().into_iter().map(|(name, _)| name).collect();
        names.sort();
        assert_eq!(names, ["base", "bash", "node", "python", "ruby", "rust"]);
    }

    #[test]
    fn programs_say_what_profiles_say() {
        for (name, profile) in profiles() {
            let program = compile(&profile).unwrap();
            for number in 0..1024 {
                let call = Sysno::new(number as usize);
                let decision = call.map(|call| profile.decision(call));
                let expected = match decision {
                    Some(Decision {
                        arguments: Some(_), ..
                    }) => continue,
                    Some(_) if call == Some(Sysno::exit_group) => EXIT,
                    Some(decision) => returned(decision.action),
                    None => returned(profile.default_action()),
                };
                let (value, _) = run(&program, NATIVE, number, [u64::MAX; 6]);
                assert_eq!(value, expected, "{name}: {number} {call:?}");
            }
        }
    }

    #[test]
    fn other_architectures_end_the_job_and_numbers_that_are_none_are_refused() {
        for (name, profile) in profiles() {
            let program = compile(&profile).unwrap();
            for number in [0, 1, 20, 1000] {
                assert_eq!(run(&program, I386, number, [0; 6]).0, KILL, "{name}");
                assert_eq!(
                    run(&program, NATIVE, X32.start | number, [0; 6]).0,
                    KILL,
                    "{name}"
                );
            }
            for number in [u32::MAX, X32.end, X32.start - 1, 600] {
                let (value, _) = run(&program, NATIVE, number, [0; 6]);
                assert_eq!(value, errno(libc::ENOSYS), "{name} {number}");
            }
        }
    }

    #[test]
    fn arguments_decide() {
        for (_, profile) in profiles() {
            let program = compile(&profile).unwrap();
            let is = |call, args: &[u64]| returns(&program, call, args);
            let thread = 0x003d_0f00;
            assert_eq!(is(Sysno::clone, &[thread]), ALLOW);
            for flag in [
                libc::CLONE_NEWNS,
                libc::CLONE_NEWCGROUP,
                libc::CLONE_NEWUTS,
                libc::CLONE_NEWIPC,
                libc::CLONE_NEWUSER,
                libc::CLONE_NEWPID,
                libc::CLONE_NEWNET,
            ] {
                assert_eq!(
                    is(Sysno::clone, &[thread | u64::from(flag.cast_unsigned())]),
                    KILL
                );
            }
            for family in [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6] {
                // What is above the lower half the kernel does not look at, and nor may we.
                let family = u64::from(family.cast_unsigned()) | 7 << 32;
                assert_eq!(is(Sysno::socket, &[family, 1, 6]), ALLOW);
            }
            assert_eq!(is(Sysno::socket, &[16, 3, 0]), ALLOW);
            assert_eq!(is(Sysno::socket, &[16, 3, 9]), errno(libc::EAFNOSUPPORT));
            for family in [libc::AF_VSOCK, libc::AF_PACKET, libc::AF_ALG, libc::AF_XDP, 0] {
                let family = u64::from(family.cast_unsigned());
                assert_eq!(is(Sysno::socket, &[family, 1, 0]), errno(libc::EAFNOSUPPORT));
            }
            assert_eq!(is(Sysno::socketpair, &[1, 1, 0]), ALLOW);
            assert_eq!(is(Sysno::socketpair, &[30, 1, 0]), errno(libc::EAFNOSUPPORT));
            for request in [libc::TIOCSTI, libc::TIOCLINUX, libc::TIOCSETD] {
                assert_eq!(is(Sysno::ioctl, &[0, request]), errno(libc::EPERM));
                assert_eq!(is(Sysno::ioctl, &[0, request | 7 << 32]), errno(libc::EPERM));
            }
            assert_eq!(is(Sysno::ioctl, &[0, libc::TCGETS]), ALLOW);
            assert_eq!(is(Sysno::personality, &[0xffff_ffff]), ALLOW);
            assert_eq!(is(Sysno::personality, &[0x0004_0000]), KILL);
            assert_eq!(is(Sysno::ptrace, &[0]), errno(libc::EPERM));
            assert_eq!(is(Sysno::ptrace, &[16]), KILL);
        }
    }

    /// The kernel runs it for each number when it is installed, and for what depends on arguments each time.
    #[test]
    fn programs_are_short() {
        for (name, profile) in profiles() {
            let program = compile(&profile).unwrap();
            let count = |call: Sysno| run(&program, NATIVE, call.id().cast_unsigned(), [u64::MAX; 6]).1;
            let (longest, all) = (
                Sysno::iter().map(count).max().unwrap(),
                Sysno::iter().map(count).sum::<usize>(),
            );
            println!(
                "{name}: {} instructions, {longest} for the longest way, {all} for one of each call, {} for ioctl",
                program.len(),
                count(Sysno::ioctl)
            );
            assert!(program.len() < 400 && longest <= 32, "{name}");
        }
    }
}
