//! What can go wrong with a journal, and which files in its directory are ignored.

use std::path::PathBuf;
use std::{fmt, io};

use super::file::MAX_FILE;
use super::record::MAX_LINE;

/// Why a journal cannot be opened, written or read.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The system refused something.
    #[error("cannot {doing} {}: {why}", path.display())]
    Io {
        /// What was tried, as in "cannot *write the journal file* PATH".
        doing: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's error.
        why: io::Error,
    },
    /// What was to be recorded is not hex digits of a block that begins with the header.
    #[error("cannot record the block: it is not the hex of a block with that header")]
    NotTheBlock,
    /// What was to be recorded is larger than any block.
    #[error("cannot record the block: {bytes} bytes are more than the {MAX_LINE} of a line")]
    TooLong {
        /// How long the line would be.
        bytes: usize,
    },
    /// The blocks of unknown fate fill the largest file allowed.
    #[error("cannot write the journal file {}: it would be larger than {MAX_FILE} bytes", path.display())]
    Full {
        /// The file.
        path: PathBuf,
    },
    /// An entry that was in the file is no longer there: another process wrote to it.
    #[error("cannot read the journal file {}: it was changed by another process", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
}

impl JournalError {
    /// The system's error, if it is one.
    pub(super) fn into_io(self) -> io::Error {
        match self {
            Self::Io { why, .. } => why,
            other => io::Error::other(other),
        }
    }

    /// What can be done about it.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Io { why, .. } => match why.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Some(
                    "free some space there, or name a directory on another disk with --journal",
                ),
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                    Some("with --journal, name a directory that this user may write to")
                }
                io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
                    Some("--journal takes a directory, and this is not one")
                }
                io::ErrorKind::Unsupported => {
                    Some("files cannot be locked there; name a local directory with --journal")
                }
                _ => Some("name another directory with --journal"),
            },
            Self::Full { .. } => Some("the source has not answered for its blocks; find out why"),
            Self::NotTheBlock | Self::TooLong { .. } | Self::Changed { .. } => None,
        }
    }
}

/// What the user should know of a journal.
#[derive(Debug)]
pub enum Warning {
    /// A file was neither read nor changed.
    Ignored(Ignored),
    /// A file was damaged.
    Damaged(Damaged),
    /// The directory was removed while the journal was open, or the file in it.
    Removed {
        /// The directory.
        dir: PathBuf,
    },
    /// Other users may write to the directory.
    OthersMayWrite {
        /// The directory.
        dir: PathBuf,
        /// Its permissions.
        mode: u32,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ignored(file) => file.fmt(f),
            Self::Damaged(file) => file.fmt(f),
            Self::Removed { dir } => write!(
                f,
                "the journal file in {} was removed while adit ran; it was created again with the \
                 blocks whose fate is unknown",
                dir.display()
            ),
            Self::OthersMayWrite { dir, mode } => write!(
                f,
                "other users may write to the journal directory {} (mode {mode:03o}), and so \
                 remove blocks before they are submitted; chmod go-w prevents that",
                dir.display()
            ),
        }
    }
}

/// A file of a dead process that could not be read completely.
#[derive(Debug)]
pub struct Damaged {
    /// The file.
    pub path: PathBuf,
    /// Its name from now on.
    pub kept_as: PathBuf,
    /// How many blocks of unknown fate could be read from it. They are pending.
    pub blocks: usize,
}

impl fmt::Display for Damaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let blocks = match self.blocks {
            0 => "no block of unknown fate".to_owned(),
            1 => "1 block of unknown fate".to_owned(),
            blocks => format!("{blocks} blocks of unknown fate"),
        };
        write!(
            f,
            "journal file {} is damaged: {blocks} could be read, and it is kept as {}",
            self.path.display(),
            self.kept_as.display()
        )
    }
}

/// A file in the directory that is named like a journal and was neither read nor changed.
#[derive(Debug)]
pub struct Ignored {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub why: WhyIgnored,
}

/// Why a file was ignored.
#[derive(Debug)]
pub enum WhyIgnored {
    /// It is a link, a directory or something else that adit does not create.
    NotAFile,
    /// It is larger than any that adit writes.
    TooLarge {
        /// Its size.
        bytes: u64,
    },
    /// It does not begin as a journal does.
    NotAJournal,
    /// A newer adit wrote it.
    OtherFormat {
        /// The number it gives for its format.
        format: u32,
    },
    /// Too many files of dead processes were adopted already; it is left to a later start.
    TooMany,
    /// The system refused to open or read it.
    Unreadable(io::Error),
}

impl fmt::Display for Ignored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "journal file {} is ignored: ", self.path.display())?;
        match &self.why {
            WhyIgnored::NotAFile => f.write_str("it is not a regular file"),
            WhyIgnored::TooLarge { bytes } => {
                write!(f, "its {bytes} bytes are more than adit writes ({MAX_FILE})")
            }
            WhyIgnored::NotAJournal => f.write_str("it does not begin as a journal does"),
            WhyIgnored::OtherFormat { format } => {
                write!(f, "it was written by a newer adit (format {format})")
            }
            WhyIgnored::TooMany => f.write_str("too many others have been taken over already"),
            WhyIgnored::Unreadable(why) => write!(f, "{why}"),
        }
    }
}
