//! How to log in: what the URL says, and what the options say.

use std::path::PathBuf;

use super::{NodeArgs, PoolArgs, PoolUrl, SourceSpec};
use crate::exit::{Exit, Failure};
use crate::secret::Secret;
use crate::source::net::{CaFile, Transport};

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
    /// How to log in to the node that `source` names. What its URL says beats the options.
    ///
    /// # Errors
    /// When there is a user name without a password, or a password without a user name.
    pub fn login(&self, source: &SourceSpec) -> Result<RpcLogin, Failure> {
        let url = match source {
            SourceSpec::Rpc(url) => Some(url),
            SourceSpec::Builtin | SourceSpec::LocalNode(_) | SourceSpec::Pool(_) => None,
        };
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
    pub fn login(&self, url: &PoolUrl) -> Result<PoolLogin, Failure> {
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
