//! A node's own configuration file, as far as it says how to reach the node (Bitcoin Core's
//! `ArgsManager::ReadConfigFiles`).

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use crate::chain::params::Params;

/// The file's name in the node's data directory.
pub const NAME: &str = "bitcoin.conf";

/// The most bytes that are read of a configuration file.
const BYTES_MAX: u64 = 1 << 20;
/// The most files that are included.
const INCLUDED_MAX: usize = 16;

/// Options that a chain other than main takes from its own section only.
const OF_ONE_CHAIN: [&str; 1] = ["rpcport"];

/// The options that are read. Nothing is kept of the others.
const KNOWN: [&str; 7] =
    [INCLUDE, "rpcport", "rpcconnect", "rpcuser", "rpcpassword", "rpccookiefile", "datadir"];
/// The one option that may have several values.
const INCLUDE: &str = "includeconf";

/// The options of the file and of those that it includes, in the order of precedence. A few values
/// a chain at most, however long the files are.
#[derive(Debug, Default)]
pub struct Conf {
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    /// The chain's name as in `[regtest]`; empty at the file's beginning.
    section: String,
    key: String,
    value: String,
    /// File and line, for error messages.
    place: String,
}

impl Conf {
    /// Reads the configuration of the node whose data directory is `base`. Without a file it is
    /// empty.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn read(base: &Path, params: &Params) -> io::Result<Self> {
        let mut conf = Self::default();
        match read_text(&base.join(NAME)) {
            Ok(text) => conf.add(&text, NAME),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(conf),
            Err(error) => return Err(error),
        }
        let included: Vec<PathBuf> = conf
            .all(INCLUDE, params)
            .take(INCLUDED_MAX)
            .map(|entry| base.join(&entry.value))
            .collect();
        for file in included {
            conf.add(&read_text(&file)?, &file.display().to_string());
        }
        Ok(conf)
    }

    pub(crate) fn add(&mut self, text: &str, file: &str) {
        let mut section = String::new();
        for (line, number) in text.lines().zip(1..) {
            let line = line.split('#').next().unwrap_or_default().trim();
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                name.trim().clone_into(&mut section);
                continue;
            }
            // A node does not start with a line that it cannot read, so there is no need to
            // complain here.
            let Some((key, value)) = line.split_once('=') else { continue };
            let (key, value) = (key.trim(), value.trim());
            let (section, key) = match key.split_once('.') {
                Some((section, key)) => (section, key),
                None => (section.as_str(), key),
            };
            if !KNOWN.contains(&key) || !self.has_room_for(section, key) {
                continue;
            }
            self.entries.push(Entry {
                section: section.to_owned(),
                key: key.to_owned(),
                value: value.to_owned(),
                place: format!("{file}:{number}"),
            });
        }
    }

    /// Whether another value of this key counts: the first one in a section does. Sections are a
    /// chain's, or the part before the first one.
    fn has_room_for(&self, section: &str, key: &str) -> bool {
        let known = section.is_empty() || Params::from_chain_name(section).is_some();
        let most = if key == INCLUDE { INCLUDED_MAX } else { 1 };
        let same = |entry: &&Entry| entry.key == key && entry.section == section;
        known && self.entries.iter().filter(same).count() < most
    }

    /// Every value of `key` for this chain: those of its section first, each in the order of the
    /// file.
    fn all<'a>(&'a self, key: &str, params: &Params) -> impl Iterator<Item = &'a Entry> {
        let section = params.chain_name;
        let everywhere = params.data_folder.is_none() || !OF_ONE_CHAIN.contains(&key);
        let of = |wanted: &str| -> Vec<&'a Entry> {
            self.entries.iter().filter(|e| e.key == key && e.section == wanted).collect()
        };
        of(section).into_iter().chain(of("").into_iter().filter(move |_| everywhere))
    }

    /// The value of `key` for this chain, and its file and line.
    pub fn get<'a>(&'a self, key: &str, params: &Params) -> Option<(&'a str, &'a str)> {
        let entry = self.all(key, params).next()?;
        Some((entry.value.as_str(), entry.place.as_str())).filter(|(value, _)| !value.is_empty())
    }
}

fn read_text(file: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(file)?.take(BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use bitcoin::Network;
    use proptest::prelude::*;

    use super::*;

    fn value(text: &str, key: &str, network: Network) -> Option<String> {
        let mut conf = Conf::default();
        conf.add(text, NAME);
        conf.get(key, Params::of(network)).map(|(value, _)| value.to_owned())
    }

    #[test]
    fn a_chains_section_beats_the_beginning_and_the_first_beats_the_later() {
        let text = "rpcuser = a # not b\nrpcuser=c\n[regtest]\nrpcuser=d\nrpcport=1\n [test] \n\
                    rpcport=2\nsignet.rpcport=3\n";
        assert_eq!(value(text, "rpcuser", Network::Bitcoin).as_deref(), Some("a"));
        assert_eq!(value(text, "rpcuser", Network::Regtest).as_deref(), Some("d"));
        assert_eq!(value(text, "rpcport", Network::Regtest).as_deref(), Some("1"));
        assert_eq!(value(text, "rpcport", Network::Testnet).as_deref(), Some("2"));
        assert_eq!(value(text, "rpcport", Network::Signet).as_deref(), Some("3"));
        assert_eq!(value(text, "rpcport", Network::Bitcoin), None);
    }

    #[test]
    fn a_long_file_leaves_little_in_memory() {
        let mut conf = Conf::default();
        for line in ["rpcuser=a\n", "includeconf=a\n", "x=y\n", "[x]\nrpcuser=a\n", "[test]\n"] {
            conf.add(&line.repeat(10_000), NAME);
        }
        assert_eq!(conf.entries.len(), 1 + INCLUDED_MAX);
    }

    #[test]
    fn a_port_at_the_beginning_is_the_main_chains_alone() {
        let text = "regtest=1\nrpcport=1234\n";
        assert_eq!(value(text, "rpcport", Network::Bitcoin).as_deref(), Some("1234"));
        assert_eq!(value(text, "rpcport", Network::Regtest), None);
    }

    #[test]
    fn files_are_included_and_say_what_the_first_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let regtest = Params::of(Network::Regtest);
        assert!(Conf::read(folder.path(), regtest).unwrap().entries.is_empty());
        let conf = "includeconf=more.conf\nrpcuser=a\n[signet]\nincludeconf=not-there.conf\n";
        std::fs::write(folder.path().join(NAME), conf).unwrap();
        std::fs::write(folder.path().join("more.conf"), "rpcuser=b\nrpcpassword=c\n").unwrap();
        let conf = Conf::read(folder.path(), regtest).unwrap();
        assert_eq!(conf.get("rpcuser", regtest).map(|(value, _)| value), Some("a"));
        assert_eq!(conf.get("rpcpassword", regtest).map(|(value, _)| value), Some("c"));
        Conf::read(folder.path(), Params::of(Network::Signet)).unwrap_err();
    }

    proptest! {
        #[test]
        fn no_text_is_too_odd(text in "[\\PC\\n=\\[\\]#.]{0,200}") {
            let mut conf = Conf::default();
            conf.add(&text, NAME);
            let _ = conf.get("rpcport", Params::of(Network::Regtest));
        }
    }
}
