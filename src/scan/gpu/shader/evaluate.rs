//! Executes a function of the textbook form on terms instead of numbers.
//!
//! Control flow and indices must evaluate to constants, so loops are unrolled and no arrays remain. Only
//! an `if` around calls may depend on the nonce; its calls become [`Effect`]s.

use wgpu::naga::{
    AddressSpace, Arena, ArraySize, Block, Constant, Expression, Function, GlobalVariable, Handle,
    Literal, LocalVariable, Module, Statement, Type, TypeInner,
};

use super::Unexpandable;
use super::term::{Graph, Term};

/// A call that is made if a condition holds.
#[derive(Debug)]
pub(super) struct Effect {
    /// The condition.
    pub condition: Term,
    /// The function's name.
    pub function: String,
    /// Its arguments.
    pub arguments: Vec<Term>,
    /// The first term that is made after it.
    pub before: Term,
}

/// Evaluates `function`, whose only argument is the nonce.
///
/// # Errors
/// When there is no such function, or it uses a construct that is not supported.
pub(super) fn evaluate(
    module: &Module,
    function: &str,
) -> Result<(Graph, Vec<Effect>), Unexpandable> {
    let found = module.functions.iter().find(|(_, f)| f.name.as_deref() == Some(function));
    let (_, function) =
        found.ok_or_else(|| Unexpandable(format!("there is no function {function}")))?;
    let mut evaluator = Evaluator { module, graph: Graph::default(), effects: Vec::new() };
    let nonce = evaluator.graph.nonce();
    evaluator.call(function, vec![Value::Term(nonce)])?;
    Ok((evaluator.graph, evaluator.effects))
}

/// The value of an expression.
#[derive(Clone, Debug)]
enum Value {
    Term(Term),
    /// An array or a vector.
    Parts(Vec<Value>),
    Pointer(Pointer),
}

#[derive(Clone, Debug)]
enum Pointer {
    /// To a part of a local variable: the variable, and the indices that lead to the part.
    Local(Handle<LocalVariable>, Vec<usize>),
    /// To a part of the parameters: its offset in bytes, and its type.
    Params(usize, Handle<Type>),
    /// To a component of a vector in the parameters: its offset in bytes.
    ParamsWord(usize),
}

/// How a block ended.
enum Flow {
    Next,
    Break,
    Continue,
    Return(Option<Value>),
}

/// The state of a function call.
struct Frame<'a> {
    function: &'a Function,
    arguments: Vec<Value>,
    locals: Vec<Value>,
    /// The values of expressions that have been evaluated.
    values: Vec<Option<Value>>,
}

struct Evaluator<'a> {
    module: &'a Module,
    graph: Graph,
    effects: Vec<Effect>,
}

/// The error for a construct that is not supported.
fn unsupported<T>(what: impl std::fmt::Debug) -> Result<T, Unexpandable> {
    Err(Unexpandable(format!("{what:?}")))
}

impl<'a> Evaluator<'a> {
    fn call(
        &mut self,
        function: &'a Function,
        arguments: Vec<Value>,
    ) -> Result<Option<Value>, Unexpandable> {
        let mut locals = Vec::new();
        for (_, variable) in function.local_variables.iter() {
            locals.push(match variable.init {
                Some(init) => self.expression(None, &function.expressions, init)?,
                None => self.zero(variable.ty)?,
            });
        }
        let values = vec![None; function.expressions.len()];
        let mut frame = Frame { function, arguments, locals, values };
        match self.block(&mut frame, &function.body)? {
            Flow::Return(value) => Ok(value),
            _ => Ok(None),
        }
    }

    fn block(&mut self, frame: &mut Frame<'a>, block: &'a Block) -> Result<Flow, Unexpandable> {
        for statement in block {
            match self.statement(frame, statement)? {
                Flow::Next => {}
                ended => return Ok(ended),
            }
        }
        Ok(Flow::Next)
    }

    fn statement(
        &mut self,
        frame: &mut Frame<'a>,
        statement: &'a Statement,
    ) -> Result<Flow, Unexpandable> {
        match statement {
            Statement::Emit(range) => {
                for handle in range.clone() {
                    let expressions = &frame.function.expressions;
                    let value = self.expression(Some(frame), expressions, handle)?;
                    frame.values[handle.index()] = Some(value);
                }
            }
            Statement::Block(block) => return self.block(frame, block),
            Statement::If { condition, accept, reject } => {
                let condition = self.term(frame, *condition)?;
                return match self.graph.number(condition) {
                    Some(0) => self.block(frame, reject),
                    Some(_) => self.block(frame, accept),
                    None if reject.is_empty() => self.effect(frame, condition, accept),
                    None => unsupported(statement),
                };
            }
            Statement::Loop { body, continuing, break_if } => loop {
                match self.block(frame, body)? {
                    Flow::Next | Flow::Continue => {}
                    Flow::Break => break,
                    returned @ Flow::Return(_) => return Ok(returned),
                }
                self.block(frame, continuing)?;
                if let Some(condition) = break_if {
                    let condition = self.term(frame, *condition)?;
                    match self.graph.number(condition) {
                        Some(0) => {}
                        Some(_) => break,
                        None => return unsupported(statement),
                    }
                }
            },
            Statement::Break => return Ok(Flow::Break),
            Statement::Continue => return Ok(Flow::Continue),
            Statement::Return { value } => {
                let value = value.map(|value| self.value(frame, value)).transpose()?;
                return Ok(Flow::Return(value));
            }
            Statement::Store { pointer, value } => {
                let value = self.value(frame, *value)?;
                let Value::Pointer(Pointer::Local(variable, path)) = self.value(frame, *pointer)?
                else {
                    return unsupported(statement);
                };
                let mut place = &mut frame.locals[variable.index()];
                for at in path {
                    let Value::Parts(parts) = place else { return unsupported(statement) };
                    place = &mut parts[at];
                }
                *place = value;
            }
            Statement::Call { function, arguments, result } => {
                let arguments = arguments
                    .iter()
                    .map(|argument| self.value(frame, *argument))
                    .collect::<Result<_, _>>()?;
                let returned = self.call(&self.module.functions[*function], arguments)?;
                if let Some(result) = result {
                    frame.values[result.index()] = returned;
                }
            }
            _ => return unsupported(statement),
        }
        Ok(Flow::Next)
    }

    /// Executes an `if` whose condition depends on the nonce.
    fn effect(
        &mut self,
        frame: &mut Frame<'a>,
        condition: Term,
        accept: &'a Block,
    ) -> Result<Flow, Unexpandable> {
        for statement in accept {
            match statement {
                Statement::Emit(_) => {
                    self.statement(frame, statement)?;
                }
                Statement::Call { function, arguments, result: None } => {
                    let arguments = arguments
                        .iter()
                        .map(|argument| self.term(frame, *argument))
                        .collect::<Result<_, _>>()?;
                    let function =
                        self.module.functions[*function].name.clone().unwrap_or_default();
                    let before = self.graph.next();
                    self.effects.push(Effect { condition, function, arguments, before });
                }
                _ => return unsupported(statement),
            }
        }
        Ok(Flow::Next)
    }

    /// The value of a function's expression: as it was when its statement was executed, or as it always
    /// is for expressions that need none.
    fn value(
        &mut self,
        frame: &Frame<'a>,
        handle: Handle<Expression>,
    ) -> Result<Value, Unexpandable> {
        match &frame.values[handle.index()] {
            Some(value) => Ok(value.clone()),
            None => self.expression(Some(frame), &frame.function.expressions, handle),
        }
    }

    fn term(
        &mut self,
        frame: &Frame<'a>,
        handle: Handle<Expression>,
    ) -> Result<Term, Unexpandable> {
        match self.value(frame, handle)? {
            Value::Term(term) => Ok(term),
            other => unsupported(other),
        }
    }

    /// Evaluates an expression of a function; without a frame, a constant expression.
    fn expression(
        &mut self,
        frame: Option<&Frame<'a>>,
        expressions: &'a Arena<Expression>,
        handle: Handle<Expression>,
    ) -> Result<Value, Unexpandable> {
        let expression = &expressions[handle];
        let operand = |this: &mut Self, handle| match frame {
            Some(frame) => this.value(frame, handle),
            None => this.expression(None, expressions, handle),
        };
        match (expression, frame) {
            (Expression::Literal(literal), _) => match *literal {
                Literal::U32(value) => Ok(Value::Term(self.graph.constant(value))),
                Literal::Bool(value) => Ok(Value::Term(self.graph.constant(value.into()))),
                _ => unsupported(expression),
            },
            (Expression::Constant(constant), _) => self.constant(*constant),
            (Expression::ZeroValue(ty), _) => self.zero(*ty),
            (Expression::Compose { components, .. }, _) => {
                let parts =
                    components.iter().map(|part| operand(self, *part)).collect::<Result<_, _>>()?;
                Ok(Value::Parts(parts))
            }
            (Expression::Access { base, index }, _) => {
                let index = match operand(self, *index)? {
                    Value::Term(term) => self.graph.number(term),
                    _ => None,
                };
                let Some(index) = index else { return unsupported(expression) };
                let base = operand(self, *base)?;
                self.part(base, index as usize)
            }
            (Expression::AccessIndex { base, index }, _) => {
                let base = operand(self, *base)?;
                self.part(base, *index as usize)
            }
            (Expression::Binary { op, left, right }, _) => {
                match (operand(self, *left)?, operand(self, *right)?) {
                    (Value::Term(left), Value::Term(right)) => {
                        Ok(Value::Term(self.graph.binary(*op, left, right)?))
                    }
                    _ => unsupported(expression),
                }
            }
            (Expression::Load { pointer }, Some(frame)) => {
                let Value::Pointer(pointer) = operand(self, *pointer)? else {
                    return unsupported(expression);
                };
                self.load(frame, &pointer)
            }
            (Expression::FunctionArgument(at), Some(frame)) => {
                Ok(frame.arguments[*at as usize].clone())
            }
            (Expression::LocalVariable(variable), _) => {
                Ok(Value::Pointer(Pointer::Local(*variable, Vec::new())))
            }
            (Expression::GlobalVariable(variable), _) => self.global(*variable),
            _ => unsupported(expression),
        }
    }

    fn constant(&mut self, handle: Handle<Constant>) -> Result<Value, Unexpandable> {
        let init = self.module.constants[handle].init;
        self.expression(None, &self.module.global_expressions, init)
    }

    fn global(&mut self, handle: Handle<GlobalVariable>) -> Result<Value, Unexpandable> {
        let variable = &self.module.global_variables[handle];
        if variable.space != AddressSpace::Uniform {
            return unsupported(variable);
        }
        Ok(Value::Pointer(Pointer::Params(0, variable.ty)))
    }

    /// A part of a composite value; of a pointer, a pointer to a part of its target.
    fn part(&mut self, base: Value, index: usize) -> Result<Value, Unexpandable> {
        Ok(match base {
            Value::Parts(mut parts) if index < parts.len() => parts.swap_remove(index),
            Value::Pointer(Pointer::Local(variable, mut path)) => {
                path.push(index);
                Value::Pointer(Pointer::Local(variable, path))
            }
            Value::Pointer(Pointer::Params(offset, ty)) => {
                Value::Pointer(match &self.module.types[ty].inner {
                    TypeInner::Struct { members, .. } => {
                        let member = &members[index];
                        Pointer::Params(offset + member.offset as usize, member.ty)
                    }
                    TypeInner::Array { base, stride, .. } => {
                        Pointer::Params(offset + index * *stride as usize, *base)
                    }
                    TypeInner::Vector { .. } => Pointer::ParamsWord(offset + 4 * index),
                    other => return unsupported(other),
                })
            }
            other => return unsupported(other),
        })
    }

    fn load(&mut self, frame: &Frame<'a>, pointer: &Pointer) -> Result<Value, Unexpandable> {
        match pointer {
            Pointer::Local(variable, path) => {
                let mut place = &frame.locals[variable.index()];
                for at in path {
                    let Value::Parts(parts) = place else { return unsupported(place) };
                    place = &parts[*at];
                }
                Ok(place.clone())
            }
            Pointer::ParamsWord(offset) => Ok(Value::Term(self.graph.input(offset / 4))),
            Pointer::Params(offset, ty) => match &self.module.types[*ty].inner {
                TypeInner::Scalar(_) => Ok(Value::Term(self.graph.input(offset / 4))),
                other => unsupported(other),
            },
        }
    }

    fn zero(&mut self, ty: Handle<Type>) -> Result<Value, Unexpandable> {
        match &self.module.types[ty].inner {
            TypeInner::Scalar(_) => Ok(Value::Term(self.graph.constant(0))),
            TypeInner::Array { base, size: ArraySize::Constant(length), .. } => {
                let part = self.zero(*base)?;
                Ok(Value::Parts(vec![part; length.get() as usize]))
            }
            other => unsupported(other),
        }
    }
}
