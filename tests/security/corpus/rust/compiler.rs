// tries: to read files of the system while it is compiled, and to run code of its own then
// passes: what the compiler reads, this user may read; the compiler is not root
// fails: the shadow file was there to read
// timeout: 120
fn main() {
    let owner = std::fs::metadata(std::env::current_exe().expect("a program")).map(|file| {
        use std::os::unix::fs::MetadataExt as _;
        file.uid()
    });
    let shadow = std::fs::read("/etc/shadow");
    match (owner, shadow) {
        (Ok(0), _) => println!("ISOLATION fail: the compiler is root"),
        (_, Ok(_)) => println!("ISOLATION fail: the shadow file can be read"),
        (_, Err(error)) => println!("ISOLATION pass: {error}"),
    }
}
