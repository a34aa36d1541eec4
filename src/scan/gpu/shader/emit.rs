//! Writes a graph of terms as a straight line of WGSL.

use std::collections::HashMap;
use std::fmt::Write as _;

use wgpu::naga::BinaryOperator;

use super::evaluate::Effect;
use super::term::{Graph, Known, Node, Term, symbol};
use super::{Adds, HEAD, Unexpandable};

/// What is left to do for each nonce, and what the host has to bring.
#[derive(Debug)]
pub(super) struct Emitted {
    /// Statements.
    pub body: String,
    /// What `params.h0`, `params.h1` and so on stand for.
    pub host_words: Vec<Term>,
}

/// Writes what `effects` depend on, and the effects.
pub(super) fn emit(
    graph: &mut Graph,
    effects: &[Effect],
    adds: Adds,
) -> Result<Emitted, Unexpandable> {
    let roots: Vec<Term> =
        effects.iter().flat_map(|e| [&[e.condition], &*e.arguments].concat()).collect();
    let sums = Sums::of(graph, &roots)?;
    let uses = uses(graph, &roots, |graph, term| sums.operands(graph, term));
    let mut writer =
        Writer { graph, sums: &sums, adds, names: HashMap::new(), host_words: Vec::new() };
    let mut body = String::new();
    let mut effects = effects.iter().peekable();
    let terms: Vec<Term> =
        uses.iter().filter(|(_, count)| **count > 0).map(|(term, _)| *term).collect();
    let mut named: Vec<Term> = terms
        .into_iter()
        .filter(|term| writer.graph.known(*term) == Known::ByNonce)
        .filter(|term| writer.graph.node(*term) != Node::Nonce)
        .filter(|term| uses[term] > 1 || sums.0.contains_key(term))
        .collect();
    named.sort_unstable();
    for term in named {
        while let Some(effect) = effects.next_if(|effect| effect.place <= Graph::place(term)) {
            writer.effect(&mut body, effect)?;
        }
        let text = writer.expression(term)?;
        let name = format!("t{}", writer.names.len());
        let _ = writeln!(body, "    let {name} = {text};");
        writer.names.insert(term, name);
    }
    for effect in effects {
        writer.effect(&mut body, effect)?;
    }
    Ok(Emitted { body, host_words: writer.host_words })
}

/// How often each term is used in what `roots` need.
fn uses(
    graph: &Graph,
    roots: &[Term],
    operands: impl Fn(&Graph, Term) -> Vec<Term>,
) -> HashMap<Term, usize> {
    let mut uses: HashMap<Term, usize> = HashMap::new();
    let mut open = roots.to_vec();
    while let Some(term) = open.pop() {
        let count = uses.entry(term).or_default();
        *count += 1;
        if *count == 1 && graph.known(term) == Known::ByNonce {
            open.extend(operands(graph, term));
        }
    }
    uses
}

fn operands(graph: &Graph, term: Term) -> Vec<Term> {
    match graph.node(term) {
        Node::Binary(_, left, right) => vec![left, right],
        _ => Vec::new(),
    }
}

/// Every sum with all its terms, where the graph has two at a time: those that depend on the nonce,
/// and the rest of them added up.
struct Sums(HashMap<Term, Vec<Term>>);

impl Sums {
    fn of(graph: &mut Graph, roots: &[Term]) -> Result<Self, Unexpandable> {
        let uses = uses(graph, roots, operands);
        let mut terms: Vec<Term> = uses.keys().copied().collect();
        terms.sort_unstable();
        let mut sums = Self(HashMap::new());
        for term in terms {
            if graph.known(term) != Known::ByNonce {
                continue;
            }
            let Node::Binary(BinaryOperator::Add, left, right) = graph.node(term) else { continue };
            let mut by_nonce = Vec::new();
            let mut rest = graph.constant(0);
            for operand in [left, right] {
                let parts = match sums.0.get(&operand) {
                    // Taking a sum apart is free where nobody else needs it, or where it has but one
                    // term that the host does not know.
                    Some(parts) if uses[&operand] == 1 || sums.is_offset(graph, operand) => {
                        parts.clone()
                    }
                    _ => vec![operand],
                };
                for part in parts {
                    if graph.known(part) == Known::ByNonce {
                        by_nonce.push(part);
                    } else {
                        rest = graph.binary(BinaryOperator::Add, rest, part)?;
                    }
                }
            }
            if graph.number(rest) != Some(0) {
                by_nonce.push(rest);
            }
            sums.0.insert(term, by_nonce);
        }
        Ok(sums)
    }

    fn is_offset(&self, graph: &Graph, sum: Term) -> bool {
        self.0[&sum].iter().filter(|part| graph.known(**part) == Known::ByNonce).count() == 1
    }

    fn operands(&self, graph: &Graph, term: Term) -> Vec<Term> {
        self.0.get(&term).cloned().unwrap_or_else(|| operands(graph, term))
    }
}

struct Writer<'a> {
    graph: &'a Graph,
    sums: &'a Sums,
    adds: Adds,
    names: HashMap<Term, String>,
    host_words: Vec<Term>,
}

impl Writer<'_> {
    fn effect(&mut self, body: &mut String, effect: &Effect) -> Result<(), Unexpandable> {
        let condition = self.operand(effect.condition)?;
        let arguments: Vec<String> =
            effect.arguments.iter().map(|term| self.operand(*term)).collect::<Result<_, _>>()?;
        let arguments = arguments.join(", ");
        let _ = writeln!(body, "    if {condition} {{ {}({arguments}); }}", effect.function);
        Ok(())
    }

    /// A term by its name, or in brackets.
    fn operand(&mut self, term: Term) -> Result<String, Unexpandable> {
        if let Some(name) = self.names.get(&term) {
            return Ok(name.clone());
        }
        match (self.graph.known(term), self.graph.node(term)) {
            (_, Node::Const(value)) => Ok(format!("{value:#x}u")),
            (_, Node::Nonce) => Ok("nonce".to_owned()),
            (_, Node::Input(word)) if word < HEAD.len() => Ok(format!("params.{}", HEAD[word])),
            (Known::ByNonce, _) => Ok(format!("({})", self.expression(term)?)),
            _ => {
                let known = self.host_words.iter().position(|word| *word == term);
                let at = known.unwrap_or_else(|| {
                    self.host_words.push(term);
                    self.host_words.len() - 1
                });
                Ok(format!("params.h{at}"))
            }
        }
    }

    /// A term without its name.
    fn expression(&mut self, term: Term) -> Result<String, Unexpandable> {
        if let Some(parts) = self.sums.0.get(&term) {
            let parts: Vec<String> =
                parts.iter().map(|part| self.operand(*part)).collect::<Result<_, _>>()?;
            return Ok(sum(&parts, self.adds));
        }
        match self.graph.node(term) {
            Node::Binary(op, left, right) => {
                let (left, right) = (self.operand(left)?, self.operand(right)?);
                Ok(format!("{left} {} {right}", symbol(op)?))
            }
            _ => self.operand(term),
        }
    }
}

/// The sum of these, with as many of its additions steered as asked for.
fn sum(parts: &[String], adds: Adds) -> String {
    let additions = parts.len() - 1;
    let steered = match adds {
        Adds::Plain => 0,
        // Adders that take three terms do two additions at once. An odd one goes to the multipliers,
        // or a pair.
        Adds::Some => additions.min(2 - additions % 2),
        Adds::All => additions,
    };
    let mut text = parts[0].clone();
    for (done, part) in parts[1..].iter().enumerate() {
        text = match (done < steered, part.ends_with(')')) {
            (true, _) => format!("({part} * params.one + {text})"),
            (false, _) => format!("({text} + {part})"),
        };
    }
    text
}
