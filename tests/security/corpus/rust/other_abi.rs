// tries: system calls by the entries for 32-bit and x32 programs, which filters have overlooked
// passes: they are refused, or end the program
// fails: a namespace is made that way
// ends: signal
// timeout: 120
use std::arch::asm;

const CLONE_NEWUSER: u64 = 0x1000_0000;

/// unshare of 32-bit programs, by interrupt 0x80.
fn by_interrupt(flags: u64) -> i64 {
    let result: i64;
    unsafe {
        asm!("xchg rbx, {flags}", "int 0x80", "xchg rbx, {flags}", flags = inout(reg) flags => _,
            inlateout("rax") 310_i64 => result, out("r8") _, out("r9") _, out("r10") _, out("r11") _);
    }
    result as i32 as i64
}

/// unshare with the bit of x32 programs.
fn by_x32(flags: u64) -> i64 {
    let result: i64;
    unsafe {
        asm!("syscall", inlateout("rax") 272_i64 | 0x4000_0000 => result, in("rdi") flags, out("rcx") _, out("r11") _);
    }
    result
}

fn main() {
    let x32 = by_x32(CLONE_NEWUSER);
    if x32 == 0 {
        println!("ISOLATION fail: the x32 entry makes a user namespace");
        return;
    }
    let interrupt = by_interrupt(CLONE_NEWUSER);
    if interrupt == 0 {
        println!("ISOLATION fail: the 32-bit entry makes a user namespace");
    } else {
        println!("ISOLATION pass: errors {} and {}", -x32, -interrupt);
    }
}
