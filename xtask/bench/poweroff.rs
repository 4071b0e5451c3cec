//! The smallest PID 1 there is: it restarts the machine, which ends a QEMU started with `-no-reboot`. `cargo xtask bench
//! cold` boots it for comparison.

#![no_std]
#![no_main]

use core::arch::asm;

/// reboot(2) on x86-64, with its magic numbers.
const SYS_REBOOT: usize = 169;
const MAGIC: [usize; 2] = [0xfee1_dead, 0x2812_1969];
const RESTART: usize = 0x0123_4567;

#[unsafe(no_mangle)]
extern "C" fn _start() -> ! {
    // SAFETY: a system call that takes numbers only.
    unsafe {
        asm!(
            "syscall",
            in("rax") SYS_REBOOT, in("rdi") MAGIC[0], in("rsi") MAGIC[1], in("rdx") RESTART, in("r10") 0,
            options(noreturn),
        )
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
