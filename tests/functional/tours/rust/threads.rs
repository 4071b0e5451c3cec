// Threads, and everything that waits.
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Condvar, Mutex, OnceLock, RwLock, mpsc};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

thread_local!(static OWN: std::cell::Cell<u32> = const { std::cell::Cell::new(1) });
static ONCE: OnceLock<u32> = OnceLock::new();

fn main() {
    let (sender, receiver) = mpsc::channel();
    let workers: Vec<_> = (0..4)
        .map(|n| {
            let sender = sender.clone();
            thread::Builder::new().name(format!("worker {n}")).stack_size(128 << 10).spawn(move || sender.send(n).unwrap()).unwrap()
        })
        .collect();
    drop(sender);
    assert_eq!(receiver.iter().sum::<u32>(), 6);
    workers.into_iter().for_each(|worker| worker.join().unwrap());

    let count = AtomicUsize::new(0);
    let barrier = Barrier::new(3);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                barrier.wait();
                count.fetch_add(1, Ordering::Relaxed);
            });
        }
    });
    assert_eq!(count.into_inner(), 3);

    let pair = Arc::new((Mutex::new(false), Condvar::new()));
    let theirs = Arc::clone(&pair);
    let waker = thread::spawn(move || {
        *theirs.0.lock().unwrap() = true;
        theirs.1.notify_all();
    });
    drop(pair.1.wait_while(pair.0.lock().unwrap(), |ready| !*ready).unwrap());
    waker.join().unwrap();
    assert!(receiver.recv_timeout(Duration::from_millis(5)).is_err());
    assert!(thread::spawn(|| panic!("on purpose")).join().is_err());

    OWN.set(2);
    assert_eq!((OWN.get(), *ONCE.get_or_init(|| 3)), (2, 3));
    let before = Instant::now();
    thread::sleep(Duration::from_millis(10));
    thread::park_timeout(Duration::from_millis(1));
    thread::yield_now();
    assert!(before.elapsed() >= Duration::from_millis(10) && SystemTime::now() > SystemTime::UNIX_EPOCH);
    assert!(thread::available_parallelism().unwrap().get() > 0);
    let map: RwLock<HashMap<_, _>> = RwLock::new((0..1000).map(|n| (n, n.to_string())).collect());
    assert_eq!(map.read().unwrap()[&7], "7");
    let mut large = vec![1_u8; 32 << 20];
    large.resize(48 << 20, 2);
    large.shrink_to(1 << 20);
    assert_eq!(large.iter().rev().take(10).map(|n| u32::from(*n)).sum::<u32>(), 20);
    println!("done");
}
