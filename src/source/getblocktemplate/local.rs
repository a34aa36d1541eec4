//! The node on this machine: where it listens and how to log in, by its own configuration.

use std::path::{Path, PathBuf};

use bitcoin::Network;

use super::conf::{self, Conf};
use super::rpc::{Credentials, Endpoint};
use crate::chain::params::Params;
use crate::secret::Secret;
use crate::source::{Refused, SourceError};

/// What to do if no login is found.
const LOGIN_HINT: &str =
    "log in with --rpc-user and ADIT_RPC_PASSWORD, or name the cookie with --rpc-cookie";

/// Where a chain's node on this machine listens: its configuration's `rpcport` and `rpcconnect`, or
/// the defaults. `datadir` is the node's data directory, if it is not the default one.
///
/// # Errors
/// When its configuration cannot be read or is invalid.
pub fn local_endpoint(network: Network, datadir: Option<&Path>) -> Result<Endpoint, SourceError> {
    check_exists(datadir)?;
    let params = Params::of(network);
    let mut endpoint = Endpoint { host: "127.0.0.1".to_owned(), port: params.rpc_port };
    // Without a home directory there is no configuration.
    let Some(base) = base(params, datadir) else { return Ok(endpoint) };
    let conf = read(&base, params)?;
    if let Some((port, place)) = conf.get("rpcport", params) {
        endpoint.port = port.parse().ok().filter(|port| *port != 0).ok_or_else(|| {
            let what = format!("the node's configuration in {}", base.display());
            let why = format!("rpcport at {place} is not a number from 1 to 65535");
            SourceError::new(Refused::Configuration, what, why)
        })?;
    }
    if let Some((host, _)) = conf.get("rpcconnect", params) {
        host.trim_start_matches('[').trim_end_matches(']').clone_into(&mut endpoint.host);
    }
    Ok(endpoint)
}

/// How to log in to the node at `endpoint`: with the `rpcuser` and `rpcpassword` of its
/// configuration, or with the cookie that it writes without them.
///
/// `network` is the chain if one was named; otherwise the port shows it, and if it does not, every
/// chain's cookie is tried. `datadir` is the node's data directory, if it is not the default one.
///
/// # Errors
/// When the node is on another machine, whose cookie cannot be read from here, when the data
/// directory is not known, and when the configuration cannot be read.
pub fn local_login(
    endpoint: &Endpoint,
    network: Option<Network>,
    datadir: Option<&Path>,
) -> Result<Credentials, SourceError> {
    let what = || format!("login to the node {endpoint}");
    let elsewhere = || {
        let why = "a node on another machine has no cookie file here";
        SourceError::new(Refused::Configuration, what(), why).hint(LOGIN_HINT)
    };
    check_exists(datadir)?;
    // The passwords of this machine's node are not sent to another machine, unless the configuration
    // names it. A data directory on the command line makes no difference: the address does.
    if network.is_none() && !endpoint.is_loopback() {
        return Err(elsewhere());
    }
    let listens_there = |params: &&Params| {
        local_endpoint(params.network, datadir).is_ok_and(|local| local.port == endpoint.port)
    };
    let likely = network.map(Params::of).or_else(|| Params::all().iter().find(listens_there));
    let candidates: Vec<&Params> = match likely {
        Some(params) => vec![params],
        None => Params::all().iter().collect(),
    };
    let mut cookies: Vec<PathBuf> = Vec::new();
    for params in candidates {
        let Some(base) = base(params, datadir) else {
            let why = "this user has no home directory to look for a cookie in";
            return Err(SourceError::new(Refused::Configuration, what(), why).hint(LOGIN_HINT));
        };
        let conf = read(&base, params)?;
        let said = |key| conf.get(key, params).map(|(value, _)| value);
        if let Some(password) = said("rpcpassword").filter(|_| likely.is_some()) {
            return Ok(Credentials::UserPassword {
                user: said("rpcuser").unwrap_or_default().to_owned(),
                password: Secret::from(password.to_owned()),
            });
        }
        // A node that was given its data directory on the command line ignores the one in its
        // configuration; one that was not uses it.
        let moved = said("datadir").map(|moved| base.join(moved));
        let places = match (datadir, moved) {
            (Some(_), Some(moved)) => vec![base, moved],
            (None, Some(moved)) => vec![moved],
            (_, None) => vec![base],
        };
        for place in places {
            let folder = params.data_folder.map_or_else(|| place.clone(), |name| place.join(name));
            cookies.push(folder.join(said("rpccookiefile").unwrap_or(".cookie")));
        }
    }
    cookies.dedup();
    if datadir.is_none() && !endpoint.is_loopback() {
        return Err(elsewhere());
    }
    // The directory that was named may be the chain's own, inside the data directory.
    if let Some(datadir) = datadir {
        let there = datadir.join(".cookie");
        if !cookies.contains(&there) {
            cookies.push(there);
        }
    }
    Ok(Credentials::Cookie(cookies))
}

/// Checks that a data directory that was named exists: a node does not start without it either. A
/// chain's own directory in it may be missing, since the node creates it.
fn check_exists(datadir: Option<&Path>) -> Result<(), SourceError> {
    let of_chain = |datadir: &Path| {
        let is_above = datadir.parent().is_some_and(Path::is_dir);
        let mut folders = Params::all().iter().filter_map(|params| params.data_folder);
        is_above && folders.any(|folder| datadir.ends_with(folder))
    };
    let missing = |datadir: &&Path| !datadir.is_dir() && !of_chain(datadir);
    let Some(datadir) = datadir.filter(missing) else { return Ok(()) };
    let what = format!("data directory {}", datadir.display());
    let why = if datadir.exists() { "it is not a directory" } else { "there is no such directory" };
    let hint = "name the directory that the node was started with, its -datadir";
    Err(SourceError::new(Refused::Configuration, what, why).hint(hint))
}

/// The data directory in which the configuration of the chain's node is.
fn base(params: &Params, datadir: Option<&Path>) -> Option<PathBuf> {
    let Some(datadir) = datadir else { return default_datadir() };
    // If the chain's own directory was named, the one that it is in is meant.
    let named = params.data_folder.is_some_and(|folder| datadir.ends_with(folder));
    let above = datadir.parent().filter(|above| named && above.join(conf::NAME).is_file());
    Some(above.unwrap_or(datadir).to_owned())
}

fn read(base: &Path, params: &Params) -> Result<Conf, SourceError> {
    Conf::read(base, params).map_err(|error| {
        let what = format!("the node's configuration in {}", base.display());
        SourceError::new(Refused::Configuration, what, error.to_string()).hint(
            "make it readable for this user, or name the node's address and cookie: adit mine \
             http://127.0.0.1:PORT --rpc-cookie FILE",
        )
    })
}

/// Where nodes keep their data by default (Bitcoin Core's `GetDefaultDataDir`).
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

    fn login(host: &str, port: u16, network: Option<Network>, datadir: &Path) -> Credentials {
        let endpoint = Endpoint { host: host.to_owned(), port };
        local_login(&endpoint, network, Some(datadir)).unwrap()
    }

    fn files(host: &str, port: u16, network: Option<Network>) -> Vec<String> {
        let data = tempfile::tempdir().unwrap();
        let Credentials::Cookie(files) = login(host, port, network, data.path()) else {
            panic!("no cookie");
        };
        let below = |path: PathBuf| path.strip_prefix(&data).unwrap().to_owned();
        let text = |path: PathBuf| path.to_string_lossy().replace('\\', "/");
        files.into_iter().map(below).map(text).collect()
    }

    #[test]
    fn a_missing_data_directory_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("file"), "").unwrap();
        let endpoint = Endpoint { host: "127.0.0.1".to_owned(), port: 18443 };
        for (name, why) in [("nowhere", "no such directory"), ("file", "not a directory")] {
            let datadir = folder.path().join(name);
            for error in [
                local_login(&endpoint, None, Some(&datadir)).unwrap_err(),
                local_endpoint(Network::Regtest, Some(&datadir)).unwrap_err(),
            ] {
                assert_eq!(error.refused, Refused::Configuration);
                assert!(error.why.contains(why), "{error}");
            }
        }
    }

    #[test]
    fn the_chain_or_the_port_shows_the_directory() {
        let regtest = ["regtest/.cookie", ".cookie"];
        assert_eq!(files("127.0.0.1", 1, Some(Network::Regtest)), regtest);
        assert_eq!(files("localhost", 18443, None), regtest);
        assert_eq!(files("::1", 8332, None), [".cookie"]);
        assert_eq!(files("127.0.0.1", 1, None).len(), 5);
    }

    #[test]
    fn no_login_is_looked_for_on_behalf_of_another_machine() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(conf::NAME), "rpcpassword=hunter2\n").unwrap();
        let endpoint = Endpoint { host: "192.0.2.1".to_owned(), port: 18443 };
        for datadir in [None, Some(folder.path())] {
            let error = local_login(&endpoint, None, datadir).unwrap_err();
            assert_eq!(error.refused, Refused::Configuration);
        }
    }

    #[test]
    fn the_nodes_own_configuration_is_honoured() {
        let folder = tempfile::tempdir().unwrap();
        let (base, network) = (folder.path(), Network::Regtest);
        let write = |text: &str| std::fs::write(base.join(conf::NAME), text).unwrap();

        write("datadir=/elsewhere\n[regtest]\nrpcport=4321\n");
        let endpoint = local_endpoint(network, Some(base)).unwrap();
        assert_eq!(endpoint, Endpoint { host: "127.0.0.1".to_owned(), port: 4321 });
        // The port tells the chain also where an address is given.
        for named in [Some(network), None] {
            let Credentials::Cookie(files) = login("127.0.0.1", 4321, named, base) else {
                panic!("no cookie");
            };
            assert_eq!(
                files[..2],
                [base.join("regtest/.cookie"), "/elsewhere/regtest/.cookie".into()]
            );
        }

        write("rpcuser=al\nrpcpassword=hunter2\n[regtest]\nrpccookiefile=/run/cookie\n");
        let Credentials::UserPassword { user, password } =
            login("127.0.0.1", 1, Some(network), base)
        else {
            panic!("no password");
        };
        assert_eq!((user.as_str(), password.reveal()), ("al", "hunter2"));

        write("[regtest]\nrpccookiefile=/run/cookie\n");
        // Also where the chain's folder is named.
        for datadir in [base.to_owned(), base.join("regtest")] {
            let Credentials::Cookie(files) = login("127.0.0.1", 1, Some(network), &datadir) else {
                panic!("no cookie");
            };
            assert_eq!(files[0], Path::new("/run/cookie"));
        }

        write("[regtest]\nrpcport=99999\n");
        let error = local_endpoint(network, Some(base)).unwrap_err();
        assert!(error.why.contains("bitcoin.conf:2"), "{error}");
    }
}
