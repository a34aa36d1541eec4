//! Where the real programs are that tests run: `./tests/run` brings those that are missing.

use std::env;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::poll;

/// The program: what the environment names, what is on the PATH, or what `tests/tools/` has brought.
pub fn find(variable: &str, name: &str, folder: &str) -> PathBuf {
    if let Some(program) = env::var_os(variable).filter(|program| !program.is_empty()) {
        return program.into();
    }
    let on_path = env::var_os("PATH").unwrap_or_default();
    let target = env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    let brought = Path::new(env!("CARGO_MANIFEST_DIR")).join(target).join("tools").join(folder);
    env::split_paths(&on_path)
        .chain([brought])
        .map(|folder| folder.join(name))
        .find(|program| program.is_file())
        .unwrap_or_else(|| panic!("no {name}: run ./tests/run once, or name one in {variable}"))
}

/// A server of a test's own, gone when the test is.
pub struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    /// Starts a program that is to listen on a free port of this machine, in `folder`, where its
    /// output goes too; `prepare` is given the port and makes the command. Waits until it takes
    /// connections.
    pub fn start(folder: &Path, prepare: impl Fn(u16) -> Command) -> Self {
        let log = folder.join("output.txt");
        // A port that was free a moment ago may be taken meanwhile.
        for _ in 0..5 {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
            let address = listener.local_addr().expect("its address");
            drop(listener);
            let output = File::create(&log).expect("a file for the output");
            let mut command = prepare(address.port());
            command
                .current_dir(folder)
                .stdin(Stdio::null())
                .stdout(output.try_clone().expect("a second handle"))
                .stderr(output);
            let child = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
            let mut server = Self { child, address };
            let ready = poll(Duration::from_secs(60), || {
                if server.child.try_wait().expect("the child can be asked").is_some() {
                    return Some(false);
                }
                TcpStream::connect(address).ok().map(|_| true)
            });
            if ready == Some(true) {
                return server;
            }
        }
        let output = fs::read_to_string(log).unwrap_or_default();
        panic!("{:?} does not start: {output}", prepare(0));
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
