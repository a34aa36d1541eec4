//! One open device: its programs, its slots, and what can go wrong with it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use super::adapter::Gpu;
use super::shader::{ENTRY_POINT, Hits, Outcome, Params, Shader, Shape, Variant};
use super::thread::{Patience, TICK, caught};
use crate::scan::Scan;

/// Batches that may be under way at once.
pub(super) const SLOTS: usize = 2;

/// What went wrong with a device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Trouble {
    /// It is not to be had.
    #[error("the device cannot be opened: {0}")]
    Closed(String),
    /// It is gone, or its driver says so.
    #[error("the device is lost: {0}")]
    Lost(String),
    /// It has no memory left.
    #[error("the device is out of memory")]
    OutOfMemory,
    /// It does not answer.
    #[error("the device has not answered for {} s", .0.as_secs())]
    Hang(Duration),
    /// Its driver refuses what we ask for.
    #[error("the driver refuses: {0}")]
    Refused(String),
    /// It computes wrongly.
    #[error("{0}")]
    Lies(String),
    /// Nothing: it was told to break off.
    #[error("the device is not wanted any more")]
    Unwanted,
}

impl Trouble {
    /// Whether it may be gone when the device is brought up again.
    pub(super) fn may_pass(&self) -> bool {
        !matches!(self, Self::Refused(_) | Self::Lies(_))
    }

    /// Whether it may be what the device did last that brought it about.
    pub(super) fn is_death(&self) -> bool {
        matches!(self, Self::Lost(_) | Self::Hang(_) | Self::OutOfMemory)
    }
}

/// What the driver told on a thread of its own. The first word counts: the rest follows from it.
#[derive(Clone, Default)]
pub(super) struct Told {
    anything: Arc<AtomicBool>,
    what: Arc<Mutex<Option<Trouble>>>,
}

impl Told {
    pub(super) fn tell(&self, trouble: Trouble) {
        self.what.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(trouble);
        self.anything.store(true, Ordering::Release);
    }

    /// The first word; where there is none, that the device is lost for such a reason.
    fn first_or_lost(&self, why: String) -> Trouble {
        self.check().err().unwrap_or(Trouble::Lost(why))
    }

    /// The first word that was told.
    pub(super) fn check(&self) -> Result<(), Trouble> {
        if !self.anything.load(Ordering::Acquire) {
            return Ok(());
        }
        let what = self.what.lock().unwrap_or_else(PoisonError::into_inner);
        what.clone().map_or(Ok(()), Err)
    }
}

/// Keeps a device from being closed that hangs or is lost.
///
/// wgpu closes one with its last handle. It first waits, without a deadline, until its queue is idle,
/// and panics where that fails: such a device would hang us, or panic. So one handle of it is never
/// dropped, and what it holds is left to the system. One that is out of memory is closed: then there
/// is some.
fn leave_open(trouble: &Trouble, handles: (wgpu::Device, wgpu::Queue)) {
    if matches!(trouble, Trouble::Lost(_) | Trouble::Hang(_)) {
        std::mem::forget(handles);
    }
}

/// The buffers of one batch under way.
struct Slot {
    params: wgpu::Buffer,
    hits: wgpu::Buffer,
    readback: wgpu::Buffer,
    bind_group: wgpu::BindGroup,
}

/// A variant, compiled.
#[derive(Clone)]
pub(super) struct Program {
    shader: Shader,
    pub(super) shape: Shape,
    pipeline: wgpu::ComputePipeline,
}

impl Program {
    pub(super) fn variant(&self) -> Variant {
        self.shader.variant()
    }

    /// How many midstates it takes at once.
    pub(super) fn midstates(&self) -> usize {
        self.variant().midstates.count()
    }
}

/// A batch under way.
pub(super) struct Ticket {
    slot: usize,
    submission: wgpu::SubmissionIndex,
    mapped: mpsc::Receiver<Result<(), wgpu::BufferAsyncError>>,
    submitted: Instant,
    /// Its first nonce.
    first: u32,
    /// How many hashes it tries.
    hashes: u64,
}

/// An open device.
pub(super) struct Device {
    handle: wgpu::Device,
    queue: wgpu::Queue,
    pipeline_layout: wgpu::PipelineLayout,
    /// What has been compiled: drivers take their time.
    compiled: Vec<Program>,
    slots: Vec<Slot>,
    /// The slot that the next batch takes.
    next: usize,
    /// When the batch before was done: the next one's time counts from there.
    idle_since: Instant,
    told: Told,
    #[cfg(debug_assertions)]
    pub(super) wish: Option<super::fault::Wish>,
}

impl Device {
    /// Opens `gpu`. Whoever tells `told` of trouble makes it fail with whatever it does next.
    pub(super) fn open(gpu: &Gpu, told: Told) -> Result<Self, Trouble> {
        let adapter = gpu.adapter();
        let offered = adapter.limits();
        let required_limits = wgpu::Limits {
            max_compute_workgroup_size_x: offered.max_compute_workgroup_size_x,
            max_compute_invocations_per_workgroup: offered.max_compute_invocations_per_workgroup,
            max_compute_workgroups_per_dimension: 65535
                .min(offered.max_compute_workgroups_per_dimension),
            ..wgpu::Limits::downlevel_defaults()
        };
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("adit"),
            required_limits,
            // A few buffers of some KiB are all we ever need.
            memory_hints: wgpu::MemoryHints::MemoryUsage,
            ..Default::default()
        };
        let opened = caught(|| pollster::block_on(adapter.request_device(&descriptor)));
        let (device, queue) =
            opened.map_err(Trouble::Closed)?.map_err(|error| Trouble::Closed(error.to_string()))?;
        let handles = (device.clone(), queue.clone());
        let fitted = caught(|| Self::fit_out(device, queue, told.clone()));
        let fitted = fitted.unwrap_or_else(|panic| Err(told.first_or_lost(panic)));
        fitted.inspect_err(|trouble| leave_open(trouble, handles))
    }

    /// Makes what belongs to every batch.
    fn fit_out(device: wgpu::Device, queue: wgpu::Queue, told: Told) -> Result<Self, Trouble> {
        let errors = told.clone();
        device.on_uncaptured_error(Arc::new(move |error| {
            errors.tell(match error {
                wgpu::Error::OutOfMemory { .. } => Trouble::OutOfMemory,
                error => Trouble::Refused(error.to_string()),
            });
        }));
        let losses = told.clone();
        device.set_device_lost_callback(move |reason, message| {
            losses.tell(Trouble::Lost(format!("{message} ({reason:?})")));
        });

        let binding = |binding, ty| wgpu::BindGroupLayoutEntry {
            binding,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
            count: None,
        };
        let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
            label: None,
            entries: &[
                binding(0, wgpu::BufferBindingType::Uniform),
                binding(1, wgpu::BufferBindingType::Storage { read_only: false }),
            ],
        });
        let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: None,
            bind_group_layouts: &[Some(&layout)],
            immediate_size: 0,
        });
        let slots = (0..SLOTS).map(|_| Slot::new(&device, &layout)).collect();
        told.check()?;
        let idle_since = Instant::now();
        Ok(Self {
            handle: device,
            queue,
            pipeline_layout,
            compiled: Vec::new(),
            slots,
            next: 0,
            idle_since,
            told,
            #[cfg(debug_assertions)]
            wish: None,
        })
    }

    /// Says that the tests are over: what comes now is in earnest.
    /// What was compiled for them is let go of.
    pub(super) fn mining_begins(&mut self) {
        self.compiled = Vec::new();
        #[cfg(debug_assertions)]
        if let Some(wish) = &mut self.wish {
            wish.mining_begins();
        }
    }

    /// Fails, where a test wants it to.
    #[cfg(debug_assertions)]
    fn perhaps_fail(&mut self, variant: Variant) {
        use super::fault::Fault;
        match self.wish.as_mut().and_then(|wish| wish.strikes(variant)) {
            Some(Fault::Lost | Fault::Chokes) => self.handle.destroy(),
            // What wgpu does in a wait, having told the reason.
            Some(Fault::Panics) => {
                self.told.tell(Trouble::Lost("a test wants it to be".to_owned()));
                panic!("Error in Device::poll: Parent device is lost");
            }
            Some(Fault::OutOfMemory) => self.told.tell(Trouble::OutOfMemory),
            Some(Fault::Hangs) => loop {
                std::thread::park();
            },
            _ => {}
        }
    }

    /// The most invocations of a workgroup.
    pub(super) fn largest_workgroup(&self) -> u32 {
        let limits = self.handle.limits();
        limits.max_compute_workgroup_size_x.min(limits.max_compute_invocations_per_workgroup)
    }

    /// Does something with the device in which wgpu may panic.
    fn guarded<T>(
        &mut self,
        call: impl FnOnce(&mut Self) -> Result<T, Trouble>,
    ) -> Result<T, Trouble> {
        let done = caught(|| call(self));
        let done = done.unwrap_or_else(|panic| Err(self.told.first_or_lost(panic)));
        done.inspect_err(|trouble| leave_open(trouble, (self.handle.clone(), self.queue.clone())))
    }

    /// Compiles a variant, unless it has been.
    pub(super) fn compile(&mut self, variant: Variant, shape: Shape) -> Result<Program, Trouble> {
        self.guarded(|device| device.compile_now(variant, shape))
    }

    fn compile_now(&mut self, variant: Variant, shape: Shape) -> Result<Program, Trouble> {
        let same = |program: &&Program| program.variant() == variant && program.shape == shape;
        if let Some(program) = self.compiled.iter().find(same) {
            return Ok(program.clone());
        }
        #[cfg(debug_assertions)]
        if self.wish.as_ref().is_some_and(|wish| wish.refuses(variant)) {
            return Err(Trouble::Refused("a test wants it to".to_owned()));
        }
        let refused = |error: super::shader::Unexpandable| Trouble::Refused(error.to_string());
        let shader = Shader::new(variant).map_err(refused)?;
        let text = shader.wgsl(shape).map_err(refused)?;
        // A driver may choke on one variant and take the next, also for want of memory.
        let no_memory = self.handle.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let invalid = self.handle.push_error_scope(wgpu::ErrorFilter::Validation);
        let internal = self.handle.push_error_scope(wgpu::ErrorFilter::Internal);
        let module = self.handle.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: Some(variant.name()),
            source: wgpu::ShaderSource::Wgsl(text.into()),
        });
        let pipeline = self.handle.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(variant.name()),
            layout: Some(&self.pipeline_layout),
            module: &module,
            entry_point: Some(ENTRY_POINT),
            compilation_options: wgpu::PipelineCompilationOptions::default(),
            cache: None,
        });
        let errors = [internal, invalid, no_memory].map(|scope| pollster::block_on(scope.pop()));
        self.told.check()?;
        if let Some(error) = errors.into_iter().flatten().next() {
            return Err(Trouble::Refused(error.to_string()));
        }
        let program = Program { shader, shape, pipeline };
        self.compiled.push(program.clone());
        Ok(program)
    }

    /// Sends a batch on its way. At most [`SLOTS`] may be under way; they end in their order.
    pub(super) fn submit(&mut self, program: &Program, scan: &Scan<'_>) -> Result<Ticket, Trouble> {
        self.guarded(|device| device.submit_now(program, scan))
    }

    fn submit_now(&mut self, program: &Program, scan: &Scan<'_>) -> Result<Ticket, Trouble> {
        #[cfg(debug_assertions)]
        self.perhaps_fail(program.variant());
        let at = self.next;
        self.next = (at + 1) % SLOTS;
        let slot = &self.slots[at];
        let params: Params = program.shader.params(scan);
        self.queue.write_buffer(&slot.params, 0, bytemuck::bytes_of(&params));
        let mut encoder =
            self.handle.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: None });
        encoder.clear_buffer(&slot.hits, 0, Some(Hits::COUNTER_SIZE));
        {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            pass.set_pipeline(&program.pipeline);
            pass.set_bind_group(0, &slot.bind_group, &[]);
            let (x, y, z) = program.shape.workgroups(scan.nonces);
            pass.dispatch_workgroups(x, y, z);
        }
        encoder.copy_buffer_to_buffer(&slot.hits, 0, &slot.readback, 0, Hits::SIZE);
        let submission = self.queue.submit([encoder.finish()]);
        let (tell, mapped) = mpsc::sync_channel(1);
        slot.readback.map_async(wgpu::MapMode::Read, .., move |result| {
            // The ticket may be gone already.
            let _ = tell.send(result);
        });
        self.told.check()?;
        let first = scan.nonces.first();
        let hashes = scan.nonces.count() * scan.midstates.len() as u64;
        Ok(Ticket { slot: at, submission, mapped, submitted: Instant::now(), first, hashes })
    }

    /// Waits for the oldest batch; at most so long. Says what it found, and how long it took.
    pub(super) fn wait(
        &mut self,
        ticket: Ticket,
        limit: Duration,
    ) -> Result<(Outcome, Duration), Trouble> {
        self.guarded(|device| device.wait_now(ticket, limit))
    }

    fn wait_now(
        &mut self,
        ticket: Ticket,
        limit: Duration,
    ) -> Result<(Outcome, Duration), Trouble> {
        let Ticket { slot, submission, mapped, submitted, first, hashes } = ticket;
        let mut patience = Patience::new(limit);
        loop {
            let waited = self.handle.poll(wgpu::PollType::Wait {
                submission_index: Some(submission.clone()),
                timeout: Some(TICK),
            });
            self.told.check()?;
            match waited {
                Ok(_) => break,
                Err(wgpu::PollError::Timeout) => {
                    patience.tick();
                    patience.check()?;
                }
                Err(wgpu::PollError::WrongSubmissionIndex(..)) => {
                    return Err(Trouble::Lost("it takes no batch any more".to_owned()));
                }
            }
        }
        let begun = submitted.max(self.idle_since);
        self.idle_since = Instant::now();
        // The wait has run the callback.
        match mapped.try_recv() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(Trouble::Lost(error.to_string())),
            Err(_) => return Err(Trouble::Lost("a batch did not come back".to_owned())),
        }
        let readback = &self.slots[slot].readback;
        let outcome = match readback.get_mapped_range(..) {
            Ok(bytes) => Hits::read(&bytes),
            Err(error) => return Err(Trouble::Lost(error.to_string())),
        };
        readback.unmap();
        self.told.check()?;
        let outcome = outcome.ok_or_else(|| Trouble::Lost("a batch came back short".to_owned()))?;
        #[cfg(debug_assertions)]
        let outcome = self.wish.iter().fold(outcome, |outcome, wish| wish.bend(outcome, first));
        #[cfg(not(debug_assertions))]
        let _ = first;
        // Otherwise such a batch would be done again in halves, for ever.
        if u64::from(outcome.found) > hashes {
            let found = outcome.found;
            return Err(Trouble::Lies(format!("reports {found} hits of {hashes} hashes")));
        }
        Ok((outcome, self.idle_since - begun))
    }

    /// Does one batch from beginning to end.
    pub(super) fn scan(
        &mut self,
        program: &Program,
        scan: &Scan<'_>,
        limit: Duration,
    ) -> Result<(Outcome, Duration), Trouble> {
        let ticket = self.submit(program, scan)?;
        self.wait(ticket, limit)
    }
}

impl Slot {
    fn new(device: &wgpu::Device, layout: &wgpu::BindGroupLayout) -> Self {
        use wgpu::BufferUsages as Usage;
        let buffer = |size, usage| {
            let descriptor =
                wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false };
            device.create_buffer(&descriptor)
        };
        let params = buffer(size_of::<Params>() as u64, Usage::UNIFORM | Usage::COPY_DST);
        let hits = buffer(Hits::SIZE, Usage::STORAGE | Usage::COPY_SRC | Usage::COPY_DST);
        let readback = buffer(Hits::SIZE, Usage::MAP_READ | Usage::COPY_DST);
        let bind_group = device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout,
            entries: &[
                wgpu::BindGroupEntry { binding: 0, resource: params.as_entire_binding() },
                wgpu::BindGroupEntry { binding: 1, resource: hits.as_entire_binding() },
            ],
        });
        Self { params, hits, readback, bind_group }
    }
}
