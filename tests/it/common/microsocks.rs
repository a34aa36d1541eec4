//! A real SOCKS5 proxy: microsocks.

use std::fs;
use std::process::Command;

use tempfile::TempDir;

use super::tool::{self, Server};

pub struct Microsocks {
    server: Server,
    folder: TempDir,
}

impl Microsocks {
    /// For everyone, or for the one with this user name and password.
    pub fn start(login: Option<(&str, &str)>) -> Self {
        let program = tool::find("MICROSOCKS_EXE", "microsocks", "microsocks");
        let folder = TempDir::with_prefix("adit-microsocks-").expect("a temporary folder");
        let server = Server::start(folder.path(), |port| {
            let mut command = Command::new(&program);
            command.args(["-i", "127.0.0.1", "-p", &port.to_string()]);
            if let Some((user, password)) = login {
                command.args(["-u", user, "-P", password]);
            }
            command
        });
        Self { server, folder }
    }

    /// Its URL without a login.
    pub fn url(&self) -> String {
        format!("socks5://{}", self.server.address())
    }

    /// Its URL with a user name.
    pub fn url_as(&self, user: &str) -> String {
        format!("socks5://{user}@{}", self.server.address())
    }

    /// How many connections it has made, by its own log.
    pub fn connections(&self) -> usize {
        let log = fs::read_to_string(self.folder.path().join("output.txt")).unwrap_or_default();
        log.lines().filter(|line| line.contains("connected to ")).count()
    }
}
