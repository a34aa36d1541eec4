//! Where a node leaves its cookie.

use std::path::{Path, PathBuf};

use bitcoin::Network;

use super::rpc::Endpoint;
use crate::chain::params::Params;
use crate::source::{Refused, SourceError};

/// The files in which the node at `endpoint` may have left its cookie, the likeliest first.
///
/// `network` is the chain where that was said; otherwise the port tells, and where it doesn't,
/// every chain's file is looked at. `datadir` is the node's data directory, where it isn't the one
/// that nodes choose by themselves.
///
/// # Errors
/// When the node is on another machine, where its cookie isn't to be found, and when there is no
/// telling where the data directory is.
pub fn cookie_files(
    endpoint: &Endpoint,
    network: Option<Network>,
    datadir: Option<&Path>,
) -> Result<Vec<PathBuf>, SourceError> {
    let what = format!("login to the node {endpoint}");
    let login =
        "log in with --rpc-user and ADIT_RPC_PASSWORD, or name the cookie with --rpc-cookie";
    if datadir.is_none() && !endpoint.is_loopback() {
        let why = "a node on another machine has no cookie file here";
        return Err(SourceError::new(Refused::Configuration, what, why).hint(login));
    }
    let Some(base) = datadir.map(Path::to_owned).or_else(default_datadir) else {
        let why = "this user has no home directory to look for a cookie in";
        return Err(SourceError::new(Refused::Configuration, what, why).hint(login));
    };
    let by_port = || Params::all().iter().find(|params| params.rpc_port == endpoint.port);
    let likely = network.map(Params::of).or_else(by_port);
    let folder = |params: &Params| {
        params.data_folder.map_or_else(|| base.clone(), |folder| base.join(folder))
    };
    let mut folders: Vec<PathBuf> = match likely {
        Some(params) => vec![folder(params)],
        None => Params::all().iter().map(folder).collect(),
    };
    // Whoever names a data directory may name the chain's folder in it.
    if datadir.is_some() && !folders.contains(&base) {
        folders.push(base);
    }
    Ok(folders.into_iter().map(|folder| folder.join(".cookie")).collect())
}

/// Where nodes keep their data unless told otherwise (Bitcoin Core's `GetDefaultDataDir`).
fn default_datadir() -> Option<PathBuf> {
    if cfg!(windows) {
        return std::env::var_os("APPDATA").map(|data| PathBuf::from(data).join("Bitcoin"));
    }
    let home = etcetera::home_dir().ok()?;
    Some(if cfg!(target_os = "macos") {
        home.join("Library/Application Support/Bitcoin")
    } else {
        home.join(".bitcoin")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(host: &str, port: u16, network: Option<Network>) -> Vec<String> {
        let endpoint = Endpoint { host: host.to_owned(), port };
        cookie_files(&endpoint, network, Some(Path::new("data")))
            .unwrap()
            .into_iter()
            .map(|path| path.to_string_lossy().replace('\\', "/"))
            .collect()
    }

    #[test]
    fn the_chain_or_the_port_tells_the_folder() {
        let regtest = ["data/regtest/.cookie", "data/.cookie"];
        assert_eq!(files("127.0.0.1", 1, Some(Network::Regtest)), regtest);
        assert_eq!(files("localhost", 18443, None), regtest);
        assert_eq!(files("::1", 8332, None), ["data/.cookie"]);
        assert_eq!(files("127.0.0.1", 1, None).len(), 5);
    }

    #[test]
    fn no_cookie_is_looked_for_on_behalf_of_another_machine() {
        let endpoint = Endpoint { host: "192.0.2.1".to_owned(), port: 18443 };
        let error = cookie_files(&endpoint, None, None).unwrap_err();
        assert_eq!(error.refused, Refused::Configuration);
    }
}
