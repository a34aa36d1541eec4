//! One file a command: they wire rooms together and hold no logic of their own.

pub mod mine;
