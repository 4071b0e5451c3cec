// Files, processes and the network that there is: this machine's own.
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, Stdio};
use std::{env, thread};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let work = env::temp_dir().join("tour");
    fs::create_dir_all(work.join("a/b"))?;
    env::set_current_dir(&work)?;
    fs::write("text", "line\n".repeat(1000))?;
    fs::hard_link("text", "hard")?;
    symlink("text", "soft")?;
    fs::rename("hard", "a/b/renamed")?;
    fs::copy("text", "copied")?;
    fs::set_permissions("copied", fs::Permissions::from_mode(0o600))?;
    assert_eq!(fs::canonicalize("soft")?, fs::canonicalize("text")?);
    assert_eq!(fs::metadata("copied")?.len(), 5000);
    let mut file = File::options().read(true).write(true).create(true).truncate(true).open("data")?;
    file.set_len(4096)?;
    file.write_all_at(b"abcdef", 10)?;
    file.sync_all()?;
    file.sync_data()?;
    lock(&file);
    file.seek(SeekFrom::Start(10))?;
    let mut read = [0; 6];
    file.read_exact(&mut read)?;
    assert_eq!(&read, b"abcdef");
    assert_eq!(fs::read_dir(".")?.count(), 5);
    assert_eq!(BufReader::new(File::open("text")?).lines().count(), 1000);
    env::set_current_dir("/")?;
    fs::remove_dir_all(&work)?;

    assert_eq!(Command::new("sh").args(["-c", "echo $X"]).env("X", "1").output()?.stdout, b"1\n");
    let mut cat = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).current_dir("/tmp").spawn()?;
    cat.stdin.take().unwrap().write_all(b"through")?;
    assert_eq!(cat.wait_with_output()?.stdout, b"through");
    let mut sleep = Command::new("sleep").arg("60").process_group(0).spawn()?;
    sleep.kill()?;
    assert_eq!(sleep.wait()?.signal(), Some(9));
    assert_eq!(Command::new("sh").args(["-c", "exit 3"]).status()?.code(), Some(3));

    let server = TcpListener::bind("127.0.0.1:0")?;
    let address = server.local_addr()?;
    let client = thread::spawn(move || {
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.write_all(b"over tcp")?;
        Ok::<_, std::io::Error>(())
    });
    let mut text = String::new();
    server.accept()?.0.read_to_string(&mut text)?;
    client.join().unwrap()?;
    assert_eq!(text, "over tcp");
    let (one, other) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
    other.send_to(b"datagram", one.local_addr()?)?;
    assert_eq!(one.recv_from(&mut [0; 100])?.0, 8);
    let (mut ours, mut theirs) = UnixStream::pair()?;
    ours.write_all(b"x")?;
    theirs.read_exact(&mut [0; 1])?;
    UnixDatagram::pair()?;
    drop(UnixListener::bind("/tmp/tour-rust.sock")?);
    assert!("localhost:80".to_socket_addrs()?.count() > 0);
    println!("done");
    Ok(())
}

/// `File::lock` is younger than some compilers.
fn lock(file: &File) {
    unsafe extern "C" {
        fn flock(fd: i32, operation: i32) -> i32;
    }
    assert_eq!(unsafe { flock(file.as_raw_fd(), 2) }, 0);
}
