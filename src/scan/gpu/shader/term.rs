//! Values of the shader as far as they are known before it runs: a graph of terms, each kept once.

use std::collections::HashMap;

use wgpu::naga::BinaryOperator;

use super::{PARAMS_WORDS, Unexpandable};

/// A node of the [`Graph`]. One that is made later compares greater, so operands come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Term(usize);

/// What a term is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Node {
    /// A number; a truth value is 0 or 1.
    Const(u32),
    /// A word of the textbook shader's parameters, by its index.
    Input(usize),
    /// The argument of the expanded function.
    Nonce,
    /// An operation on two terms, at least one of which is no constant.
    Apply(Op, Term, Term),
}

/// What may be done with values that are not constant.
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
            _ => return Err(Unexpandable(format!("{op:?} of what is not constant"))),
        })
    }

    /// As WGSL writes it.
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

    /// As WGSL computes it: additions wrap, and shifts are by less than 32.
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

/// An operation on constants: all that [`Op`] has, and what indices and loops need.
fn fold(op: BinaryOperator, x: u32, y: u32) -> Result<u32, Unexpandable> {
    let odd = || Unexpandable(format!("{op:?} of {x} and {y}"));
    match op {
        BinaryOperator::Subtract => Ok(x.wrapping_sub(y)),
        BinaryOperator::Divide => x.checked_div(y).ok_or_else(odd),
        BinaryOperator::Modulo => x.checked_rem(y).ok_or_else(odd),
        BinaryOperator::Less => Ok((x < y).into()),
        _ => Op::of(op).map(|op| op.apply(x, y)).map_err(|_| odd()),
    }
}

/// When a term's value is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Known {
    /// When the shader is written.
    Now,
    /// When a batch begins: the host computes it.
    ByBatch,
    /// Only when a nonce is tried.
    ByNonce,
}

/// Terms, equal ones only once: what two midstates have in common is computed once without anyone
/// having to say so.
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

    /// The number, if it is a constant.
    pub(super) fn number(&self, term: Term) -> Option<u32> {
        match self.node(term) {
            Node::Const(value) => Some(value),
            _ => None,
        }
    }

    /// The term that the next new one will be.
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

    /// The term of an operation, a constant where both of its operands are.
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
        // Most words of a message are padding's zeros.
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

    /// How the host computes `wanted`, none of which may depend on the nonce.
    pub(super) fn program(&self, wanted: &[Term]) -> Result<Program, Unexpandable> {
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
                odd => return Err(Unexpandable(format!("{odd:?} among the host's words"))),
            });
        }
        Ok(Program { steps, results: wanted.iter().map(|term| places[term.0]).collect() })
    }
}

/// What the host does once a batch.
#[derive(Clone, Debug)]
pub(super) struct Program {
    steps: Vec<Step>,
    results: Vec<usize>,
}

/// A value that follows from inputs and from the steps before, by their numbers.
#[derive(Clone, Copy, Debug)]
enum Step {
    Const(u32),
    Input(usize),
    Apply(Op, usize, usize),
}

impl Program {
    /// The results, in the order in which they were wanted.
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
