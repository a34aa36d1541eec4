//! A real Stratum V1 server: datum-gateway, mining alone on a node of the test's.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::node::Node;
use super::tool::{self, Server};

/// A pay-out address that no one has the key of: it takes base58 and nothing else.
const ADDRESS: &str = "mfWxJ45yp2SFn7UciZyNpvDKrzbhyfKrY8";

pub struct DatumGateway {
    server: Server,
    folder: TempDir,
}

impl DatumGateway {
    /// Starts it on templates of `node`, which must have its cookie file. Its shares are of
    /// difficulty 1, the least that it can be brought to.
    pub fn start(node: &Node) -> Self {
        Self::configured(node, json!({"datum": {"pool_host": "", "pooled_mining_only": false}}))
    }

    /// The same with settings of which those are replaced that say where it and the node listen.
    pub fn configured(node: &Node, mut settings: Value) -> Self {
        let program = tool::find("DATUM_GATEWAY_EXE", "datum_gateway", "datum");
        let folder = TempDir::with_prefix("adit-datum-").expect("a temporary folder");
        let config = folder.path().join("datum.json");
        settings["bitcoind"] = json!({
            "rpccookiefile": node.cookie_file(),
            "rpcurl": node.url(),
            "work_update_seconds": 5,
        });
        settings["mining"] = json!({"pool_address": ADDRESS});
        settings["api"] = json!({"listen_port": 0});
        let server = Server::start(folder.path(), |port| {
            let mut settings = settings.clone();
            settings["stratum"] =
                json!({"listen_addr": "127.0.0.1", "listen_port": port, "vardiff_min": 1});
            fs::write(&config, settings.to_string()).expect("its configuration is written");
            let mut command = Command::new(&program);
            command.arg("-c").arg(&config);
            command
        });
        Self { server, folder }
    }

    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// What it has said so far.
    pub fn output(&self) -> String {
        fs::read_to_string(self.folder.path().join("output.txt")).unwrap_or_default()
    }

    pub fn url(&self) -> String {
        format!("stratum+tcp://{}", self.address())
    }
}
