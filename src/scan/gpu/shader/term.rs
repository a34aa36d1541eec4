//! The values that the shader computes, as a graph of terms in which equal terms are one.

use std::collections::HashMap;

use wgpu::naga::BinaryOperator;

use super::{PARAMS_WORDS, Unexpandable};

/// A node of the [`Graph`]. Terms are ordered by when they were made, so operands come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Term(usize);

/// How a term is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Node {
    /// A number; a boolean is 0 or 1.
    Const(u32),
    /// A word of the textbook form's parameters, by its index.
    Input(usize),
    /// The argument of the expanded function.
    Nonce,
    /// An operation on two terms, at least one of which is not a constant.
    Apply(Op, Term, Term),
}

/// The operations that are supported on values that are not constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Op {
    Add,
    And,
    Or,
    Xor,
    ShiftLeft,
    ShiftRight,
    Equal,
}

impl Op {
    fn of(op: BinaryOperator) -> Result<Self, Unexpandable> {
        Ok(match op {
            BinaryOperator::Add => Self::Add,
            BinaryOperator::And => Self::And,
            BinaryOperator::InclusiveOr => Self::Or,
            BinaryOperator::ExclusiveOr => Self::Xor,
            BinaryOperator::ShiftLeft => Self::ShiftLeft,
            BinaryOperator::ShiftRight => Self::ShiftRight,
            BinaryOperator::Equal => Self::Equal,
            _ => return Err(Unexpandable(format!("{op:?} of values that are not constant"))),
        })
    }

    /// The operator in WGSL.
    pub(super) const fn symbol(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::And => "&",
            Self::Or => "|",
            Self::Xor => "^",
            Self::ShiftLeft => "<<",
            Self::ShiftRight => ">>",
            Self::Equal => "==",
        }
    }

    /// Computes it as WGSL does: additions wrap, and shifts are by less than 32.
    const fn apply(self, x: u32, y: u32) -> u32 {
        match self {
            Self::Add => x.wrapping_add(y),
            Self::And => x & y,
            Self::Or => x | y,
            Self::Xor => x ^ y,
            Self::ShiftLeft => x.wrapping_shl(y),
            Self::ShiftRight => x.wrapping_shr(y),
            Self::Equal => (x == y) as u32,
        }
    }
}

/// Computes an operation on constants: those of [`Op`], and those that indices and loops need.
fn fold(op: BinaryOperator, x: u32, y: u32) -> Result<u32, Unexpandable> {
    let unsupported = || Unexpandable(format!("{op:?} of {x} and {y}"));
    match op {
        BinaryOperator::Subtract => Ok(x.wrapping_sub(y)),
        BinaryOperator::Divide => x.checked_div(y).ok_or_else(unsupported),
        BinaryOperator::Modulo => x.checked_rem(y).ok_or_else(unsupported),
        BinaryOperator::Less => Ok((x < y).into()),
        _ => Op::of(op).map(|op| op.apply(x, y)).map_err(|_| unsupported()),
    }
}

/// When a term's value is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Known {
    /// When the shader is expanded.
    Now,
    /// When a batch begins; the host computes it.
    ByBatch,
    /// Only when a nonce is hashed.
    ByNonce,
}

/// All terms. Equal ones are kept once, so what two midstates have in common is computed once.
#[derive(Debug, Default)]
pub(super) struct Graph {
    nodes: Vec<(Node, Known)>,
    terms: HashMap<Node, Term>,
}

impl Graph {
    pub(super) fn node(&self, term: Term) -> Node {
        self.nodes[term.0].0
    }

    pub(super) fn known(&self, term: Term) -> Known {
        self.nodes[term.0].1
    }

    /// The value, if it is a constant.
    pub(super) fn number(&self, term: Term) -> Option<u32> {
        match self.node(term) {
            Node::Const(value) => Some(value),
            _ => None,
        }
    }

    /// The next term that will be made.
    pub(super) fn next(&self) -> Term {
        Term(self.nodes.len())
    }

    pub(super) fn constant(&mut self, value: u32) -> Term {
        self.keep(Node::Const(value), Known::Now)
    }

    pub(super) fn input(&mut self, word: usize) -> Term {
        self.keep(Node::Input(word), Known::ByBatch)
    }

    pub(super) fn nonce(&mut self) -> Term {
        self.keep(Node::Nonce, Known::ByNonce)
    }

    /// The result of an operation; a constant if both operands are.
    ///
    /// # Errors
    /// When the operation is not supported.
    pub(super) fn binary(
        &mut self,
        op: BinaryOperator,
        left: Term,
        right: Term,
    ) -> Result<Term, Unexpandable> {
        match (self.number(left), self.number(right)) {
            (Some(x), Some(y)) => fold(op, x, y).map(|value| self.constant(value)),
            _ => Op::of(op).map(|op| self.apply(op, left, right)),
        }
    }

    /// The sum of two terms.
    pub(super) fn add(&mut self, left: Term, right: Term) -> Term {
        match (self.number(left), self.number(right)) {
            (Some(x), Some(y)) => self.constant(x.wrapping_add(y)),
            _ => self.apply(Op::Add, left, right),
        }
    }

    fn apply(&mut self, op: Op, left: Term, right: Term) -> Term {
        // Most words of a message are zeros of the padding.
        match (op, self.number(left), self.number(right)) {
            (Op::Add, Some(0), _) => right,
            (Op::Add, _, Some(0)) => left,
            _ => {
                let known = self.known(left).max(self.known(right));
                self.keep(Node::Apply(op, left, right), known)
            }
        }
    }

    fn keep(&mut self, node: Node, known: Known) -> Term {
        *self.terms.entry(node).or_insert_with(|| {
            self.nodes.push((node, known));
            Term(self.nodes.len() - 1)
        })
    }

    /// The program by which the host computes `wanted`.
    ///
    /// # Errors
    /// When one of them depends on the nonce.
    pub(super) fn program(&self, wanted: &[Term]) -> Result<HostProgram, Unexpandable> {
        let mut needed = vec![false; self.nodes.len()];
        for term in wanted {
            needed[term.0] = true;
        }
        for at in (0..self.nodes.len()).rev() {
            if let (true, Node::Apply(_, left, right)) = (needed[at], self.nodes[at].0) {
                needed[left.0] = true;
                needed[right.0] = true;
            }
        }
        let mut steps = Vec::new();
        let mut places = vec![0; self.nodes.len()];
        for at in (0..self.nodes.len()).filter(|at| needed[*at]) {
            places[at] = steps.len();
            steps.push(match self.nodes[at].0 {
                Node::Const(value) => Step::Const(value),
                Node::Input(word) if word < PARAMS_WORDS => Step::Input(word),
                Node::Apply(op, left, right) => Step::Apply(op, places[left.0], places[right.0]),
                node => return Err(Unexpandable(format!("{node:?} among the host's words"))),
            });
        }
        Ok(HostProgram { steps, results: wanted.iter().map(|term| places[term.0]).collect() })
    }
}

/// What the host computes once for each batch.
#[derive(Clone, Debug)]
pub(super) struct HostProgram {
    steps: Vec<Step>,
    results: Vec<usize>,
}

/// Computes one value from the inputs and from earlier steps, which it names by their indices.
#[derive(Clone, Copy, Debug)]
enum Step {
    Const(u32),
    Input(usize),
    Apply(Op, usize, usize),
}

impl HostProgram {
    /// Computes the wanted terms, in their order, from the parameters of the textbook form.
    pub(super) fn run(&self, inputs: &[u32; PARAMS_WORDS]) -> impl Iterator<Item = u32> {
        let mut values: Vec<u32> = Vec::with_capacity(self.steps.len());
        for step in &self.steps {
            values.push(match *step {
                Step::Const(value) => value,
                Step::Input(word) => inputs[word],
                Step::Apply(op, x, y) => op.apply(values[x], values[y]),
            });
        }
        self.results.iter().map(move |at| values[*at])
    }
}
