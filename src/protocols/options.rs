//! The options that say how sources are reached: those of nodes, and those of pools.

// These comments are the help's words, where a bracket is no link.
#![allow(rustdoc::broken_intra_doc_links)]

use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::address::{self, Url};
use crate::exit::{Exit, Failure};
use crate::secret::Secret;
use crate::source::net::{CaFile, Proxy, Transport};
use crate::source::stratum_v1::target_of;
use crate::value_error::ValueError;

/// The options that hold secrets, and the environment variables that do the same unseen.
pub const IN_ENVIRONMENT: [(&str, &str); 3] = [
    ("rpc-password", "ADIT_RPC_PASSWORD"),
    ("password", "ADIT_POOL_PASSWORD"),
    ("proxy-password", "ADIT_PROXY_PASSWORD"),
];

/// How to reach the sources, and how to log in to them. A protocol with options of its own has them in
/// one more field.
#[derive(Clone, Debug, Default, Args)]
pub struct SourceOptions {
    /// How to log in to a node.
    #[command(flatten)]
    pub node: NodeArgs,
    /// How to log in to a pool, and how to get there.
    #[command(flatten)]
    pub pool: PoolArgs,
}

/// How to log in to a node.
#[derive(Clone, Debug, Default, Args)]
pub struct NodeArgs {
    /// Log in to the node with the cookie in FILE
    #[arg(
        long,
        value_name = "FILE",
        value_hint = ValueHint::FilePath,
        conflicts_with_all = ["rpc_user", "rpc_password"],
        help_heading = "Node"
    )]
    pub rpc_cookie: Option<PathBuf>,
    /// The node's data directory, where it is not the usual one: its configuration and cookie are
    /// there
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, help_heading = "Node")]
    pub datadir: Option<PathBuf>,
    /// Log in to the node as USER
    #[arg(long, value_name = "USER", help_heading = "Node")]
    pub rpc_user: Option<String>,
    /// Log in with this password; others can see a command line, so rather set it in
    /// `ADIT_RPC_PASSWORD` or in the configuration file
    #[arg(long, value_name = "PASS", help_heading = "Node")]
    pub rpc_password: Option<Secret>,
}

/// How to log in to a pool, and how to get there.
#[derive(Clone, Debug, Default, Args)]
pub struct PoolArgs {
    /// The worker's name at the pool: often a pay-out address, a dot and a name
    #[arg(long, value_name = "USER", help_heading = "Pool")]
    pub user: Option<String>,
    /// The worker's password, which most pools ignore; others can see a command line, so rather set
    /// it in `ADIT_POOL_PASSWORD` or in the configuration file
    #[arg(long, value_name = "PASS", help_heading = "Pool")]
    pub password: Option<Secret>,
    /// Ask the pool for this difficulty
    #[arg(
        long,
        value_name = "N",
        value_parser = difficulty,
        allow_hyphen_values = true,
        help_heading = "Pool"
    )]
    pub suggest_difficulty: Option<String>,
    /// Reach pools by this SOCKS5 proxy, such as Tor: socks5://[USER[:PASS]@]HOST:PORT; it resolves
    /// their names too
    #[arg(long, value_name = "URL", value_parser = address::proxy, help_heading = "Pool")]
    pub proxy: Option<Proxy>,
    /// Log in to the proxy with this password; rather set it in `ADIT_PROXY_PASSWORD` or in the
    /// configuration file
    #[arg(long, value_name = "PASS", help_heading = "Pool")]
    pub proxy_password: Option<Secret>,
    /// Trust the certificates in this PEM file too, beside the system's and the bundled ones
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "Pool")]
    pub tls_ca: Option<PathBuf>,
}

/// Takes a difficulty: a decimal number above 0 that a hash can meet.
///
/// # Errors
/// When it is not one.
fn difficulty(text: &str) -> Result<String, ValueError> {
    target_of(text).map_err(|error| ValueError::new(error.to_string()))?;
    // As JSON writes numbers: nothing but what a float's own form has.
    match text.parse::<f64>() {
        Ok(number) if number > 0.0 => Ok(serde_json::Value::from(number).to_string()),
        _ => Err(ValueError::new("it is no number")),
    }
}

/// How to log in to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RpcLogin {
    /// With this name and password.
    Password {
        /// The user name.
        user: String,
        /// The password.
        password: Secret,
    },
    /// With what stands in this file.
    Cookie(PathBuf),
    /// With the cookie of the node's data directory: this one, or the usual one.
    Discover {
        /// The data directory, where given.
        datadir: Option<PathBuf>,
    },
}

/// How to log in to a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolLogin {
    /// The worker's name.
    pub user: String,
    /// Its password.
    pub password: Secret,
}

impl NodeArgs {
    /// How to log in to a node. What its URL says beats the options.
    ///
    /// # Errors
    /// When there is a user name without a password, or a password without a user name.
    pub fn login(&self, url: Option<&Url>) -> Result<RpcLogin, Failure> {
        let url_user = url.and_then(|url| url.user.as_ref());
        if let (Some(file), None) = (&self.rpc_cookie, url_user) {
            return Ok(RpcLogin::Cookie(file.clone()));
        }
        let user = url_user.or(self.rpc_user.as_ref());
        let password = url.and_then(|url| url.password.as_ref()).or(self.rpc_password.as_ref());
        match (user, password) {
            (None, None) => Ok(RpcLogin::Discover { datadir: self.datadir.clone() }),
            (Some(user), Some(password)) => {
                Ok(RpcLogin::Password { user: user.clone(), password: password.clone() })
            }
            (Some(_), None) => Err(Failure::new(
                Exit::Usage,
                "login to the node",
                "there is a user name and no password",
            )
            .hint("set ADIT_RPC_PASSWORD, or rpc-password in the configuration file")),
            (None, Some(_)) => Err(Failure::new(
                Exit::Usage,
                "login to the node",
                "there is a password and no user name",
            )
            .hint(
                "give --rpc-user, or unset ADIT_RPC_PASSWORD and rpc-password to use the cookie",
            )),
        }
    }
}

impl PoolArgs {
    /// How pools are reached.
    ///
    /// # Errors
    /// When the file of certificates is of no use, or when the proxy's login is half there.
    pub fn transport(&self) -> Result<Transport, Failure> {
        let mut transport = Transport::new();
        if let Some(file) = &self.tls_ca {
            let roots = CaFile::read(file).map_err(|error| {
                Failure::new(Exit::Usage, "--tls-ca", error.to_string())
                    .hint("it takes a file of certificates in PEM form")
            })?;
            transport = transport.trust(roots);
        }
        let Some(mut proxy) = self.proxy.clone() else { return Ok(transport) };
        proxy.password = proxy.password.or_else(|| self.proxy_password.clone());
        let fault =
            |why, hint| Err(Failure::new(Exit::Usage, "login to the proxy", why).hint(hint));
        match (&proxy.user, &proxy.password) {
            (Some(_), None) => {
                fault("there is a user name and no password", "set ADIT_PROXY_PASSWORD")
            }
            (None, Some(_)) => fault(
                "there is a password and no user name",
                "write the user name before the host: socks5://USER@HOST:PORT",
            ),
            (_, Some(password)) if !(1..=255).contains(&password.reveal().len()) => {
                fault("the password must have 1 to 255 bytes", "set ADIT_PROXY_PASSWORD")
            }
            _ => Ok(transport.proxy(proxy)),
        }
    }

    /// How to log in to the pool at `url`. What the URL says beats the options.
    ///
    /// # Errors
    /// When there is no user name.
    pub fn login(&self, url: &Url) -> Result<PoolLogin, Failure> {
        let user = url.user.as_ref().or(self.user.as_ref()).filter(|user| !user.is_empty());
        let user = user.ok_or_else(|| {
            Failure::new(Exit::Usage, format!("login to {url}"), "there is no user name").hint(
                "give --user; many pools take a pay-out address, or an address, a dot and a name",
            )
        })?;
        let password = url.password.as_ref().or(self.password.as_ref());
        Ok(PoolLogin {
            user: user.clone(),
            // What pools that ignore it are usually given; some take an empty one amiss.
            password: password.cloned().unwrap_or_else(|| Secret::from("x".to_owned())),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn difficulties_are_numbers_above_0() {
        for (text, sent) in [("1000", "1000.0"), ("0.5", "0.5"), ("1e-9", "1e-9")] {
            assert_eq!(difficulty(text).as_deref(), Ok(sent));
        }
        for text in ["0", "-1", "many", "1e300", "inf", "\"1\"", ""] {
            assert!(difficulty(text).is_err(), "{text}");
        }
    }
}
