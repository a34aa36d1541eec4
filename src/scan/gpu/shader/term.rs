//! Values of the shader as far as they are known before it runs: a graph of terms, each kept once.

use std::collections::HashMap;

use wgpu::naga::BinaryOperator;

use super::Unexpandable;

/// A node of the [`Graph`]. One that is made later has a greater number, so operands come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Term(u32);

/// What a term is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Node {
    /// A number; a truth value is 0 or 1.
    Const(u32),
    /// A word of the textbook shader's parameters, by its index.
    Input(usize),
    /// The argument of the expanded function.
    Nonce,
    /// An operation on two terms.
    Binary(BinaryOperator, Term, Term),
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
    places: HashMap<Node, Term>,
}

impl Graph {
    pub(super) fn node(&self, term: Term) -> Node {
        self.nodes[term.0 as usize].0
    }

    pub(super) fn known(&self, term: Term) -> Known {
        self.nodes[term.0 as usize].1
    }

    /// How many terms there are.
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// A term's place in the order of their making.
    pub(super) fn place(term: Term) -> usize {
        term.0 as usize
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

    pub(super) fn number(&self, term: Term) -> Option<u32> {
        match self.node(term) {
            Node::Const(value) => Some(value),
            _ => None,
        }
    }

    /// The term of an operation, folded where that is possible.
    pub(super) fn binary(
        &mut self,
        op: BinaryOperator,
        left: Term,
        right: Term,
    ) -> Result<Term, Unexpandable> {
        if let (Some(x), Some(y)) = (self.number(left), self.number(right)) {
            return Ok(self.constant(apply(op, x, y)?));
        }
        symbol(op)?;
        // Most of a schedule's words are 0 at first.
        if op == BinaryOperator::Add {
            if self.number(left) == Some(0) {
                return Ok(right);
            }
            if self.number(right) == Some(0) {
                return Ok(left);
            }
        }
        let known = self.known(left).max(self.known(right));
        Ok(self.keep(Node::Binary(op, left, right), known))
    }

    fn keep(&mut self, node: Node, known: Known) -> Term {
        *self.places.entry(node).or_insert_with(|| {
            self.nodes.push((node, known));
            Term(self.nodes.len() as u32 - 1)
        })
    }

    /// The steps that compute `wanted`, which are all known by the batch.
    pub(super) fn program(&self, wanted: &[Term]) -> Program {
        let mut needed = vec![false; self.nodes.len()];
        for term in wanted {
            needed[term.0 as usize] = true;
        }
        for at in (0..self.nodes.len()).rev() {
            if let (true, Node::Binary(_, left, right)) = (needed[at], self.nodes[at].0) {
                needed[left.0 as usize] = true;
                needed[right.0 as usize] = true;
            }
        }
        let mut steps = Vec::new();
        let mut places = HashMap::new();
        for (at, (node, _)) in self.nodes.iter().enumerate().filter(|(at, _)| needed[*at]) {
            places.insert(Term(at as u32), steps.len());
            steps.push(match *node {
                Node::Const(value) => Step::Const(value),
                Node::Input(word) => Step::Input(word),
                Node::Nonce => unreachable!("a nonce is not known by the batch"),
                Node::Binary(op, left, right) => Step::Binary(op, places[&left], places[&right]),
            });
        }
        Program { steps, results: wanted.iter().map(|term| places[term]).collect() }
    }
}

/// What the host does once a batch.
#[derive(Clone, Debug)]
pub(super) struct Program {
    steps: Vec<Step>,
    results: Vec<usize>,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Const(u32),
    Input(usize),
    Binary(BinaryOperator, usize, usize),
}

impl Program {
    /// The results, in the order in which they were wanted.
    pub(super) fn run(&self, inputs: &[u32]) -> impl Iterator<Item = u32> {
        let mut values: Vec<u32> = Vec::with_capacity(self.steps.len());
        for step in &self.steps {
            values.push(match *step {
                Step::Const(value) => value,
                Step::Input(word) => inputs[word],
                // Only what has a symbol got into the graph, and all of that can be applied.
                Step::Binary(op, x, y) => apply(op, values[x], values[y]).unwrap_or_default(),
            });
        }
        self.results.iter().map(move |at| values[*at])
    }
}

/// An operation on numbers. Truth values are 0 and 1; shifts are WGSL's, below 32.
fn apply(op: BinaryOperator, x: u32, y: u32) -> Result<u32, Unexpandable> {
    use BinaryOperator as Op;
    Ok(match op {
        Op::Add => x.wrapping_add(y),
        Op::Subtract => x.wrapping_sub(y),
        Op::Multiply => x.wrapping_mul(y),
        Op::Divide if y != 0 => x / y,
        Op::Modulo if y != 0 => x % y,
        Op::And => x & y,
        Op::ExclusiveOr => x ^ y,
        Op::InclusiveOr => x | y,
        Op::ShiftLeft if y < 32 => x << y,
        Op::ShiftRight if y < 32 => x >> y,
        Op::Equal => u32::from(x == y),
        Op::NotEqual => u32::from(x != y),
        Op::Less => u32::from(x < y),
        Op::LessEqual => u32::from(x <= y),
        Op::Greater => u32::from(x > y),
        Op::GreaterEqual => u32::from(x >= y),
        _ => return Err(Unexpandable(format!("{op:?} of {x} and {y}"))),
    })
}

/// How an operation that may depend on the nonce is written.
pub(super) fn symbol(op: BinaryOperator) -> Result<&'static str, Unexpandable> {
    use BinaryOperator as Op;
    Ok(match op {
        Op::Add => "+",
        Op::And => "&",
        Op::ExclusiveOr => "^",
        Op::InclusiveOr => "|",
        Op::ShiftLeft => "<<",
        Op::ShiftRight => ">>",
        Op::Equal => "==",
        _ => return Err(Unexpandable(format!("{op:?} of what is not constant"))),
    })
}
