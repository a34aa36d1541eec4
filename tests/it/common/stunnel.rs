//! A real TLS terminator in front of a server: stunnel, with a certificate of the test's own issuer.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;

use super::tool::{self, Server};

pub struct Stunnel {
    server: Server,
    ca: PathBuf,
    _folder: TempDir,
}

impl Stunnel {
    /// In front of `behind`, as `localhost`.
    pub fn start(behind: SocketAddr) -> Self {
        let program = tool::find("STUNNEL_EXE", "stunnel4", "stunnel");
        let folder = TempDir::with_prefix("adit-stunnel-").expect("a temporary folder");
        let file = |name: &str| folder.path().join(name);

        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let server = CertificateParams::new(["localhost".to_owned()]).unwrap();
        let server = server.signed_by(&key, &issuer).unwrap();
        let ca = file("ca.pem");
        fs::write(&ca, issuer.pem()).expect("the issuer's certificate is written");
        fs::write(file("server.pem"), server.pem()).expect("the certificate is written");
        fs::write(file("key.pem"), key.serialize_pem()).expect("the key is written");

        let server = Server::start(folder.path(), |port| {
            let settings = format!(
                "foreground = yes\nsyslog = no\npid =\n\n[stratum]\naccept = 127.0.0.1:{port}\n\
                 connect = {behind}\ncert = {}\nkey = {}\n",
                file("server.pem").display(),
                file("key.pem").display(),
            );
            fs::write(file("stunnel.conf"), settings).expect("its configuration is written");
            let mut command = Command::new(&program);
            command.arg(file("stunnel.conf"));
            command
        });
        Self { server, ca, _folder: folder }
    }

    /// The issuer's certificate.
    pub fn ca(&self) -> &Path {
        &self.ca
    }

    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    pub fn url(&self) -> String {
        format!("stratum+tls://localhost:{}", self.address().port())
    }
}
