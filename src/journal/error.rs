//! What can go wrong with a journal, and what is passed over in its directory.

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
        /// The system's words.
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
    /// An entry that was in the file is there no more: someone else wrote to it.
    #[error("cannot read the journal file {}: it was changed by someone else", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
}

impl JournalError {
    /// The system's words where there are such.
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
                    Some("name a directory that this user may write to with --journal")
                }
                io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
                    Some("--journal names a directory, and this is none")
                }
                io::ErrorKind::Unsupported => {
                    Some("files cannot be locked there; name a local directory with --journal")
                }
                _ => Some("name a directory of another place with --journal"),
            },
            Self::Full { .. } => {
                Some("its blocks were never answered for; look at why the source does not")
            }
            Self::NotTheBlock | Self::TooLong { .. } | Self::Changed { .. } => None,
        }
    }
}

/// What a person should know of a journal.
#[derive(Debug)]
pub enum Warning {
    /// A file was neither read nor touched.
    LeftAlone(LeftAlone),
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
            Self::LeftAlone(file) => file.fmt(f),
            Self::Damaged(file) => file.fmt(f),
            Self::Removed { dir } => write!(
                f,
                "the journal file in {} was removed while adit ran; it was made again, with the \
                 blocks whose fate is unknown",
                dir.display()
            ),
            Self::OthersMayWrite { dir, mode } => write!(
                f,
                "other users may write to the journal directory {} (mode {mode:03o}) and so remove \
                 blocks before they are sent; chmod go-w takes that from them",
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

/// A file in the directory that is named like a journal's and was neither read nor touched.
#[derive(Debug)]
pub struct LeftAlone {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub why: WhyLeft,
}

/// Why a file was left alone.
#[derive(Debug)]
pub enum WhyLeft {
    /// It is a link, a directory or something else that adit does not make.
    NotAFile,
    /// It is larger than any that adit writes.
    TooLarge {
        /// Its size.
        bytes: u64,
    },
    /// It does not begin as a journal does.
    NotAJournal,
    /// A later adit wrote it.
    OtherFormat {
        /// The number it gives for its format.
        format: u32,
    },
    /// So many files of dead processes wait already that it is left to a later start.
    TooMany,
    /// The system refused to open or read it.
    Unreadable(io::Error),
}

impl fmt::Display for LeftAlone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "journal file {} is left alone: ", self.path.display())?;
        match &self.why {
            WhyLeft::NotAFile => f.write_str("it is no regular file"),
            WhyLeft::TooLarge { bytes } => {
                write!(f, "its {bytes} bytes are more than adit writes ({MAX_FILE})")
            }
            WhyLeft::NotAJournal => f.write_str("it does not begin as a journal does"),
            WhyLeft::OtherFormat { format } => {
                write!(f, "a later adit wrote it (format {format})")
            }
            WhyLeft::TooMany => f.write_str("too many others wait already"),
            WhyLeft::Unreadable(why) => write!(f, "{why}"),
        }
    }
}
