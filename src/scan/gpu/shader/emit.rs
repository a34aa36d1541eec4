//! Writes what a graph of terms leaves to do for each nonce as a straight line of WGSL.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;

use super::evaluate::Effect;
use super::term::{Graph, Known, Node, Op, Term};
use super::{Adds, HEAD};

/// A function's body, and what the host has to bring for it.
#[derive(Debug)]
pub(super) struct Emitted {
    /// Statements.
    pub body: String,
    /// What `params.h0`, `params.h1` and so on stand for.
    pub host_words: Vec<Term>,
}

/// Writes `effects` and what they depend on, in the order in which the textbook has it: a schedule
/// word stands by the round that takes it.
pub(super) fn emit(graph: &mut Graph, effects: &[Effect], adds: Adds) -> Emitted {
    let roots: Vec<Term> =
        effects.iter().flat_map(|e| [&[e.condition], &*e.arguments].concat()).collect();
    let sums = Sums::of(graph, &roots);
    let uses = uses(graph, &roots, |term| sums.operands(graph, term));
    // A name for what is needed more than once, and for sums. The rest stands where it is used.
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

/// How often each term is used in what `roots` need.
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

/// Every sum with all its terms, where the graph has two at a time: those that depend on the nonce,
/// and last the rest of them added up.
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
                let apart = match sums.0.get(&operand) {
                    // Taking a sum apart is free where nobody else needs it, or where it adds but
                    // one term to what the host knows.
                    Some(terms) if uses[&operand] == 1 || is_offset(graph, terms) => terms.clone(),
                    _ => vec![operand],
                };
                for term in apart {
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

    /// A term by its name, or in brackets.
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

    /// What a term that depends on the nonce is made of.
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

/// The sum of these, with as many of its additions steered as asked for.
fn sum(terms: &[String], adds: Adds) -> String {
    let additions = terms.len() - 1;
    let steered = match adds {
        Adds::Plain => 0,
        // An adder of three terms does two additions at once: of an odd number the one that is left
        // over, of an even number a pair.
        Adds::Some => additions.min(2 - additions % 2),
        Adds::All => additions,
    };
    let mut text = terms[0].clone();
    for (done, term) in terms[1..].iter().enumerate() {
        text = match done {
            0 if steered > 0 => format!("{term} * params.one + {text}"),
            _ if done < steered => format!("{term} * params.one + ({text})"),
            _ => format!("{text} + {term}"),
        };
    }
    text
}
