//! From a login as the command line has it to one that the node's client takes.

use adit::cli::RpcLogin;
use adit::source::SourceError;
use adit::source::getblocktemplate::{Credentials, local_login};
use adit::source::net::Endpoint;
use bitcoin::Network;

/// How we prove to the node at `endpoint`, which is said to be on `network`, who we are.
pub fn credentials(
    login: RpcLogin,
    endpoint: &Endpoint,
    network: Option<Network>,
) -> Result<Credentials, SourceError> {
    Ok(match login {
        RpcLogin::Password { user, password } => Credentials::UserPassword { user, password },
        RpcLogin::Cookie(file) => Credentials::Cookie(vec![file]),
        RpcLogin::Discover { datadir } => local_login(endpoint, network, datadir.as_deref())?,
    })
}
