//! The shader: its variants, its source, and the buffers that it shares with the host.
//!
//! `shaders/sha256d.wgsl` is the textbook form. It is evaluated ahead of time (`evaluate`) on terms
//! instead of numbers (`term`): a term is a constant, or known to the host, or depends on the nonce.
//! Those that depend on the nonce are written out as straight-line code (`emit`), and a [`Shader`] keeps
//! the program by which the host computes the words that this code reads.

mod emit;
mod evaluate;
mod term;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::{Arc, OnceLock};

use wgpu::naga::front::wgsl;

use self::emit::Emitted;
use self::term::HostProgram;
use crate::scan::{Hit, Midstate, NonceRange, Scan};

/// The textbook form of the shader.
const TEXTBOOK: &str = include_str!("../../../shaders/sha256d.wgsl");

/// The shader's compute entry point.
pub const ENTRY_POINT: &str = "scan";

/// How many hits a batch can return.
pub const HIT_CAPACITY: usize = 4096;

/// The most nonces of a batch: with four midstates each, its hits still fit a 32-bit counter.
pub const MAX_NONCES: u64 = (u32::MAX / 4) as u64;

/// The first words of the parameters, which the textbook and the expanded form share.
const HEAD: [&str; 5] = ["one", "hit_mask", "first_nonce", "last", "midstates_used"];
/// Size of the parameters in 32-bit words. Both forms use fewer.
const PARAMS_WORDS: usize = 256;
/// Offsets of the second block and the midstates in the textbook form's parameters, in words: a vector
/// begins at a multiple of 16 bytes.
const SECOND_BLOCK: usize = 8;
const MIDSTATES: usize = 12;

/// The shader cannot be expanded: `shaders/sha256d.wgsl` uses a construct that the expansion does not
/// support.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot expand sha256d.wgsl: {0}")]
pub struct Unexpandable(String);

/// How many additions are written as `x * one + y`, for cards whose integer units are the bottleneck
/// while their multiply-add units are idle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Adds {
    /// None.
    Plain,
    /// Those that would leave half of a three-operand adder unused, about half of all.
    Some,
    /// All.
    All,
}

/// How many midstates share one message schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Midstates {
    /// One, for jobs whose version cannot be rolled.
    One,
    /// Two.
    Two,
    /// Four.
    Four,
}

impl Midstates {
    /// The number.
    #[must_use]
    pub const fn count(self) -> usize {
        match self {
            Self::One => 1,
            Self::Two => 2,
            Self::Four => 4,
        }
    }
}

/// A variant of the shader. Which is fastest depends on the card.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Variant {
    /// The most midstates of a batch.
    pub midstates: Midstates,
    /// Which additions use the multiply-add units.
    pub adds: Adds,
}

impl Variant {
    /// Every variant, the plain one first.
    pub fn all() -> impl Iterator<Item = Self> {
        [Midstates::One, Midstates::Two, Midstates::Four].into_iter().flat_map(|midstates| {
            [Adds::Plain, Adds::Some, Adds::All].map(|adds| Self { midstates, adds })
        })
    }

    /// Its name: `k1`, `k2-some`, `k4-all` and so on, where k is the number of midstates.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match (self.midstates, self.adds) {
            (Midstates::One, Adds::Plain) => "k1",
            (Midstates::One, Adds::Some) => "k1-some",
            (Midstates::One, Adds::All) => "k1-all",
            (Midstates::Two, Adds::Plain) => "k2",
            (Midstates::Two, Adds::Some) => "k2-some",
            (Midstates::Two, Adds::All) => "k2-all",
            (Midstates::Four, Adds::Plain) => "k4",
            (Midstates::Four, Adds::Some) => "k4-some",
            (Midstates::Four, Adds::All) => "k4-all",
        }
    }

    /// Its form for one midstate.
    #[must_use]
    pub const fn single(self) -> Self {
        Self { midstates: Midstates::One, ..self }
    }

    /// The variant of this name.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        Self::all().find(|variant| variant.name() == name)
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How a dispatch is divided into workgroups and invocations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shape {
    /// Invocations of a workgroup, 1 to 256 on every device.
    pub workgroup_size: u32,
    /// Nonces that each invocation hashes, one after another. At least 1.
    pub nonces_per_invocation: u32,
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { workgroup_size, nonces_per_invocation } = self;
        write!(f, "workgroups of {workgroup_size}, {nonces_per_invocation} nonces each")
    }
}

impl Shape {
    /// How many workgroups to dispatch for these nonces, by dimension: as few as cover them, and at most
    /// 65535 in a row.
    ///
    /// # Panics
    /// When there are more than [`MAX_NONCES`].
    #[must_use]
    pub fn workgroups(self, nonces: NonceRange) -> (u32, u32, u32) {
        assert!(nonces.count() <= MAX_NONCES, "a batch has at most {MAX_NONCES} nonces");
        let span = u64::from(self.workgroup_size) * u64::from(self.nonces_per_invocation);
        let workgroups = nonces.count().div_ceil(span.max(1)) as u32;
        let rows = workgroups.div_ceil(65535);
        (workgroups.div_ceil(rows), rows, 1)
    }
}

/// A variant's source, and how the host computes its parameters.
#[derive(Clone, Debug)]
pub struct Shader {
    variant: Variant,
    text: Arc<str>,
    /// How the host's words are computed; `None` for the textbook form.
    program: Option<Arc<HostProgram>>,
}

impl Shader {
    /// The expanded form of a variant. Expanding takes tens of milliseconds, so each is kept.
    ///
    /// # Errors
    /// When `shaders/sha256d.wgsl` uses a construct that the expansion does not support; a test checks
    /// that it does not.
    pub fn new(variant: Variant) -> Result<Self, Unexpandable> {
        static EXPANDED: [OnceLock<Result<Shader, Unexpandable>>; 9] =
            [const { OnceLock::new() }; 9];
        let place = 3 * variant.midstates as usize + variant.adds as usize;
        EXPANDED[place].get_or_init(|| Self::expand(variant)).clone()
    }

    fn expand(variant: Variant) -> Result<Self, Unexpandable> {
        let textbook = Self::textbook(variant.midstates)?;
        let module = wgsl::parse_str(&textbook.text)
            .map_err(|error| Unexpandable(error.emit_to_string(&textbook.text)))?;
        let (mut graph, effects) = evaluate::evaluate(&module, "try_nonce")?;
        let Emitted { body, host_words } = emit::emit(&mut graph, &effects, variant.adds);
        if HEAD.len() + host_words.len() > PARAMS_WORDS {
            return Err(Unexpandable(format!("it needs {} host words", host_words.len())));
        }
        let members: Vec<String> =
            (0..host_words.len()).map(|at| format!("    h{at}: u32,\n")).collect();
        let text = replace_next(&textbook.text, &members.concat())?;
        let text = replace_next(&text, &format!("fn try_nonce(nonce: u32) {{\n{body}}}\n"))?;
        let program = Some(Arc::new(graph.program(&host_words)?));
        Ok(Self { variant, text: text.into(), program })
    }

    /// The textbook form, with loops and arrays: the same results, about a hundred times slower.
    ///
    /// # Errors
    /// As [`Shader::new`].
    pub fn textbook(midstates: Midstates) -> Result<Self, Unexpandable> {
        let text = set(TEXTBOOK, "MIDSTATES", midstates.count() as u32)?;
        let variant = Variant { midstates, adds: Adds::Plain };
        Ok(Self { variant, text: text.into(), program: None })
    }

    /// The variant.
    #[must_use]
    pub fn variant(&self) -> Variant {
        self.variant
    }

    /// The module's source in WGSL: entry point [`ENTRY_POINT`]; in group 0, binding 0 is a uniform buffer
    /// with [`Params`], binding 1 a storage buffer with the [`Hits`].
    ///
    /// # Errors
    /// As [`Shader::new`].
    pub fn wgsl(&self, shape: Shape) -> Result<String, Unexpandable> {
        let text = set(&self.text, "WORKGROUP_SIZE", shape.workgroup_size)?;
        set(&text, "NONCES_PER_INVOCATION", shape.nonces_per_invocation)
    }

    /// The parameters of a batch: everything about `scan` that does not depend on the nonce.
    ///
    /// # Panics
    /// When there is no midstate or more than the variant has, or more than [`MAX_NONCES`] nonces.
    #[must_use]
    pub fn params(&self, scan: &Scan<'_>) -> Params {
        let k = self.variant.midstates.count();
        let (midstates, nonces) = (scan.midstates, scan.nonces);
        assert!((1..=k).contains(&midstates.len()), "{} midstates for {self}", midstates.len());
        assert!(nonces.count() <= MAX_NONCES, "a batch has at most {MAX_NONCES} nonces");
        let mut words = [0; PARAMS_WORDS];
        let last = (nonces.count() - 1) as u32;
        let head = [1, scan.hit_mask.bits(), nonces.first(), last, midstates.len() as u32];
        words[..HEAD.len()].copy_from_slice(&head);
        words[SECOND_BLOCK..][..3].copy_from_slice(&scan.second_block.words);
        for (at, Midstate { state, .. }) in midstates.iter().enumerate() {
            words[MIDSTATES + 8 * at..][..8].copy_from_slice(state);
        }
        if let Some(program) = &self.program {
            let textbook = words;
            words[HEAD.len()..].fill(0);
            for (word, value) in words[HEAD.len()..].iter_mut().zip(program.run(&textbook)) {
                *word = value;
            }
        }
        Params { words }
    }
}

impl fmt::Display for Shader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.variant.fmt(f)
    }
}

/// Replaces the value of one of the shader's constants.
fn set(text: &str, constant: &str, value: u32) -> Result<String, Unexpandable> {
    let declared = format!("const {constant}: u32 = ");
    let missing = || Unexpandable(format!("there is no line {declared}…;"));
    let (before, after) = text.split_once(&declared).ok_or_else(missing)?;
    let (_, after) = after.split_once(';').ok_or_else(missing)?;
    Ok(format!("{before}{declared}{value};{after}"))
}

/// Replaces the next pair of marks, and the lines between them, by `text`.
fn replace_next(shader: &str, text: &str) -> Result<String, Unexpandable> {
    let missing = || Unexpandable("two pairs of marks are missing".to_owned());
    let (before, after) = shader.split_once("// <expanded").ok_or_else(missing)?;
    let (_, after) = after.split_once("// </expanded>\n").ok_or_else(missing)?;
    let before = before.trim_end_matches(' ');
    Ok(format!("{before}{text}{after}"))
}

/// The parameters of a batch, in the layout of the [`Shader`] that made them. A uniform buffer of this
/// size serves all variants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Params {
    words: [u32; PARAMS_WORDS],
}

/// The buffer in which the shader reports hits. Its first word must be zero when a batch begins; the rest
/// need not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Hits {
    /// The number of hits, including those that did not fit the list.
    found: u32,
    /// Nonce and midstate index.
    list: [[u32; 2]; HIT_CAPACITY],
}

impl Hits {
    /// Bytes of the buffer.
    pub const SIZE: u64 = size_of::<Self>() as u64;
    /// Bytes at the buffer's beginning that must be zero when a batch begins.
    pub const COUNTER_SIZE: u64 = size_of::<u32>() as u64;

    /// Reads the buffer after a batch; `None` if it does not have [`Hits::SIZE`] bytes.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Outcome> {
        if bytes.len() as u64 != Self::SIZE {
            return None;
        }
        let mut words = bytes.chunks_exact(4).map(bytemuck::pod_read_unaligned::<u32>);
        let found = words.next()?;
        let mut hits = Vec::with_capacity((found as usize).min(HIT_CAPACITY));
        while hits.len() < (found as usize).min(HIT_CAPACITY) {
            hits.push(Hit { nonce: words.next()?, midstate: words.next()? as usize });
        }
        Some(Outcome { hits, found })
    }
}

/// The result of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The hits, in no order; at most [`HIT_CAPACITY`] of them.
    pub hits: Vec<Hit>,
    /// The number of hits, including those that did not fit.
    pub found: u32,
}

impl Outcome {
    /// Whether hits are missing because they did not fit, so that the batch has to be repeated in smaller
    /// pieces.
    #[must_use]
    pub fn overflowed(&self) -> bool {
        self.found as usize > HIT_CAPACITY
    }
}
