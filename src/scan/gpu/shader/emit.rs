//! Writes the part of a term graph that depends on the nonce as straight-line WGSL.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;

use super::evaluate::Effect;
use super::term::{Graph, Known, Node, Op, Term};
use super::{Adds, HEAD};

/// A function's body, and the words that the host has to compute for it.
#[derive(Debug)]
pub(super) struct Emitted {
    /// Statements.
    pub body: String,
    /// The terms behind `params.h0`, `params.h1` and so on.
    pub host_words: Vec<Term>,
}

/// Writes `effects` and what they depend on, in the order of the textbook form: a word of the schedule
/// stands next to the round that uses it.
pub(super) fn emit(graph: &mut Graph, effects: &[Effect], adds: Adds) -> Emitted {
    let roots: Vec<Term> =
        effects.iter().flat_map(|e| [&[e.condition], &*e.arguments].concat()).collect();
    let sums = Sums::of(graph, &roots);
    let uses = uses(graph, &roots, |term| sums.operands(graph, term));
    // Terms that are used more than once, and sums, get a name. The rest is written where it is used.
    let named = uses.iter().filter(|(term, uses)| {
        graph.known(**term) == Known::ByNonce
            && graph.node(**term) != Node::Nonce
            && (**uses > 1 || sums.0.contains_key(term))
    });
    let mut writer =
        Writer { graph, sums: &sums, adds, names: HashMap::new(), host_words: Vec::new() };
    let mut body = String::new();
    let mut effects = effects.iter().peekable();
    for (term, _) in named {
        while let Some(effect) = effects.next_if(|effect| effect.before <= *term) {
            body += &writer.effect(effect);
        }
        let (name, text) = (format!("t{}", writer.names.len()), writer.expression(*term));
        // Writing to a string cannot fail.
        let _ = writeln!(body, "    let {name} = {text};");
        writer.names.insert(*term, name);
    }
    for effect in effects {
        body += &writer.effect(effect);
    }
    Emitted { body, host_words: writer.host_words }
}

/// How often each term is used by `roots` and by the terms that these depend on.
fn uses(
    graph: &Graph,
    roots: &[Term],
    operands: impl Fn(Term) -> Vec<Term>,
) -> BTreeMap<Term, usize> {
    let mut uses = BTreeMap::new();
    let mut open = roots.to_vec();
    while let Some(term) = open.pop() {
        let count = uses.entry(term).or_default();
        *count += 1;
        if *count == 1 && graph.known(term) == Known::ByNonce {
            open.extend(operands(term));
        }
    }
    uses
}

fn operands(graph: &Graph, term: Term) -> Vec<Term> {
    match graph.node(term) {
        Node::Apply(_, left, right) => vec![left, right],
        _ => Vec::new(),
    }
}

/// Every sum with all its terms, whereas the graph adds two at a time: first those that depend on the
/// nonce, last the sum of all others.
struct Sums(HashMap<Term, Vec<Term>>);

impl Sums {
    fn of(graph: &mut Graph, roots: &[Term]) -> Self {
        let uses = uses(graph, roots, |term| operands(graph, term));
        let mut sums = Self(HashMap::new());
        for term in uses.keys() {
            let Node::Apply(Op::Add, left, right) = graph.node(*term) else { continue };
            if graph.known(*term) != Known::ByNonce {
                continue;
            }
            let mut terms = Vec::new();
            let mut rest = graph.constant(0);
            for operand in [left, right] {
                let flattened = match sums.0.get(&operand) {
                    // Flattening a sum is free if it is used only here, or if it adds just one term
                    // to what the host knows.
                    Some(terms) if uses[&operand] == 1 || is_offset(graph, terms) => terms.clone(),
                    _ => vec![operand],
                };
                for term in flattened {
                    if graph.known(term) == Known::ByNonce {
                        terms.push(term);
                    } else {
                        rest = graph.add(rest, term);
                    }
                }
            }
            if graph.number(rest) != Some(0) {
                terms.push(rest);
            }
            sums.0.insert(*term, terms);
        }
        sums
    }

    fn operands(&self, graph: &Graph, term: Term) -> Vec<Term> {
        self.0.get(&term).cloned().unwrap_or_else(|| operands(graph, term))
    }
}

fn is_offset(graph: &Graph, terms: &[Term]) -> bool {
    terms.iter().filter(|term| graph.known(**term) == Known::ByNonce).count() == 1
}

struct Writer<'a> {
    graph: &'a Graph,
    sums: &'a Sums,
    adds: Adds,
    names: HashMap<Term, String>,
    host_words: Vec<Term>,
}

impl Writer<'_> {
    fn effect(&mut self, effect: &Effect) -> String {
        let condition = self.expression(effect.condition);
        let arguments: Vec<String> =
            effect.arguments.iter().map(|term| self.operand(*term)).collect();
        format!("    if {condition} {{ {}({}); }}\n", effect.function, arguments.join(", "))
    }

    /// A term as an operand: its name, or its expression in parentheses.
    fn operand(&mut self, term: Term) -> String {
        if let Some(name) = self.names.get(&term) {
            return name.clone();
        }
        match (self.graph.node(term), self.graph.known(term)) {
            (Node::Const(value @ 0..=255), _) => format!("{value}u"),
            (Node::Const(value), _) => format!("{value:#010x}u"),
            (Node::Nonce, _) => "nonce".to_owned(),
            (Node::Input(word), _) if word < HEAD.len() => format!("params.{}", HEAD[word]),
            (_, Known::ByNonce) => format!("({})", self.expression(term)),
            _ => format!("params.h{}", self.host_word(term)),
        }
    }

    fn host_word(&mut self, term: Term) -> usize {
        self.host_words.iter().position(|word| *word == term).unwrap_or_else(|| {
            self.host_words.push(term);
            self.host_words.len() - 1
        })
    }

    /// The expression of a term that depends on the nonce.
    fn expression(&mut self, term: Term) -> String {
        if let Some(terms) = self.sums.0.get(&term) {
            let terms: Vec<String> = terms.iter().map(|term| self.operand(*term)).collect();
            return sum(&terms, self.adds);
        }
        match self.graph.node(term) {
            Node::Apply(op, left, right) => {
                format!("{} {} {}", self.operand(left), op.symbol(), self.operand(right))
            }
            _ => self.operand(term),
        }
    }
}

/// The sum of these terms, with the additions that `adds` selects written as multiply-adds.
fn sum(terms: &[String], adds: Adds) -> String {
    let additions = terms.len() - 1;
    let multiply_adds = match adds {
        Adds::Plain => 0,
        // A three-operand adder does two additions at once: of an odd number of additions the one that
        // remains, of an even number a pair.
        Adds::Some => additions.min(2 - additions % 2),
        Adds::All => additions,
    };
    let mut text = terms[0].clone();
    for (done, term) in terms[1..].iter().enumerate() {
        text = match done {
            0 if multiply_adds > 0 => format!("{term} * params.one + {text}"),
            _ if done < multiply_adds => format!("{term} * params.one + ({text})"),
            _ => format!("{text} + {term}"),
        };
    }
    text
}
