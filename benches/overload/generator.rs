//! Threads that ask: each has a runtime and clients of its own, and adds up what came of what it asked.

use std::cell::{Cell, RefCell};
use std::fmt::Write;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::{Context, Poll, Waker};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ennead::Client;
use ennead::client::{ClientOptions, Error};
use hdrhistogram::Histogram;
use tokio::task::LocalSet;

const KEYS: u64 = 10_000;
/// Operations begun before answers get their turn.
const BATCH: u64 = 64;

/// What is asked.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    /// Puts alone, or half of them gets.
    pub(crate) puts: bool,
    /// Bytes of a value.
    pub(crate) value: usize,
}

/// How much is asked, of all together.
#[derive(Clone, Copy)]
pub(crate) enum Work {
    /// So many under way, each begun when another ends.
    Closed { under_way: usize },
    /// So many begun a second, whatever becomes of those before.
    Open { rate: f64 },
}

/// What came of it.
pub(crate) struct Came {
    pub(crate) asked: u64,
    /// Done.
    pub(crate) puts: u64,
    pub(crate) gets: u64,
    /// By its client, at once.
    pub(crate) refused: u64,
    /// By the machines.
    pub(crate) turned: u64,
    pub(crate) other: u64,
    /// Microseconds that those took which are done.
    took: Histogram<u64>,
}

impl Came {
    fn new() -> Self {
        let took = Histogram::new_with_bounds(1, 60_000_000, 2).expect("bounds of a histogram");
        Self { asked: 0, puts: 0, gets: 0, refused: 0, turned: 0, other: 0, took }
    }

    fn note(&mut self, came: &Result<Done, Error>, intended: Instant, at_once: bool) {
        match came {
            Ok(done) => {
                match done {
                    Done::Put => self.puts += 1,
                    Done::Get => self.gets += 1,
                }
                self.took.saturating_record(intended.elapsed().as_micros() as u64);
            }
            Err(Error::Overloaded { .. }) if at_once => self.refused += 1,
            Err(Error::Overloaded { .. }) => self.turned += 1,
            Err(_) => self.other += 1,
        }
    }

    fn add(&mut self, other: &Self) {
        self.asked += other.asked;
        self.puts += other.puts;
        self.gets += other.gets;
        self.refused += other.refused;
        self.turned += other.turned;
        self.other += other.other;
        self.took.add(&other.took).expect("the same bounds");
    }

    /// Done in all.
    pub(crate) fn ok(&self) -> u64 {
        self.puts + self.gets
    }

    pub(crate) fn percentile(&self, percent: f64) -> Duration {
        Duration::from_micros(self.took.value_at_quantile(percent / 100.0))
    }
}

/// All the threads.
pub(crate) struct Generators {
    threads: Vec<Thread>,
}

struct Thread {
    orders: Sender<(Work, Duration)>,
    reports: Receiver<Came>,
    /// Ends when the orders do.
    _thread: JoinHandle<()>,
}

impl Generators {
    pub(crate) fn start(threads: usize, clients: usize, options: &ClientOptions, load: Load) -> Self {
        let threads = threads.clamp(1, clients.max(1));
        let threads = (0..threads).map(|i| {
            let clients = clients.max(1) / threads + usize::from(i < clients % threads);
            let (orders, ordered) = channel();
            let (report, reports) = channel();
            let options = options.clone();
            let thread = std::thread::spawn(move || serve(clients, &options, load, &ordered, &report));
            Thread { orders, reports, _thread: thread }
        });
        Self { threads: threads.collect() }
    }

    /// Has all of them ask for so long, and adds up what came of it within that time.
    pub(crate) fn work(&self, work: Work, time: Duration) -> Came {
        let all = self.threads.len();
        for (i, thread) in self.threads.iter().enumerate() {
            let part = match work {
                Work::Closed { under_way } => {
                    Work::Closed { under_way: under_way / all + usize::from(i < under_way % all) }
                }
                Work::Open { rate } => Work::Open { rate: rate / all as f64 },
            };
            thread.orders.send((part, time)).expect("a thread that works");
        }
        let mut sum = Came::new();
        for thread in &self.threads {
            sum.add(&thread.reports.recv().expect("a thread that works"));
        }
        sum
    }
}

fn serve(
    clients: usize,
    options: &ClientOptions,
    load: Load,
    orders: &Receiver<(Work, Duration)>,
    report: &Sender<Came>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut all = Vec::new();
    for _ in 0..clients {
        all.push(runtime.block_on(Client::with_options(options.clone())).expect("a client"));
    }
    // They live as long as the program, so that operations may.
    let asker: &'static Asker = Box::leak(Box::new(Asker {
        clients: all,
        value: vec![7; load.value],
        puts: load.puts,
        key: RefCell::default(),
    }));
    // What is under way at the end of one piece of work goes on beside the next, and counts for neither.
    let tasks = LocalSet::new();
    while let Ok((work, time)) = orders.recv() {
        let came = tasks.block_on(&runtime, async {
            match work {
                Work::Closed { under_way } => asker.closed(under_way, time).await,
                Work::Open { rate } => asker.open(rate, time).await,
            }
        });
        report.send(came).expect("somebody who asked");
    }
}

enum Done {
    Put,
    Get,
}

type Operation = Pin<Box<dyn Future<Output = Result<Done, Error>>>>;

struct Asker {
    clients: Vec<Client>,
    value: Vec<u8>,
    puts: bool,
    key: RefCell<String>,
}

impl Asker {
    /// Operation number `n`: nothing is copied or allocated for it but a few words, unless it is let in.
    fn operation(&'static self, n: u64) -> Operation {
        let client = &self.clients[n as usize % self.clients.len()];
        let mut key = self.key.borrow_mut();
        key.clear();
        write!(key, "bench/{}", n.wrapping_mul(0x9E37_79B9_7F4A_7C15) % KEYS).expect("a string takes it");
        if self.puts || (n / self.clients.len() as u64).is_multiple_of(2) {
            let put = client.put(key.as_str(), &self.value);
            Box::pin(async move { put.receipt().await.map(|_| Done::Put) })
        } else {
            let key = key.clone();
            Box::pin(async move { client.get(key).await.map(|_| Done::Get) })
        }
    }
}

impl Asker {
    async fn closed(&'static self, under_way: usize, time: Duration) -> Came {
        let (came, until) = (Rc::new(RefCell::new(Came::new())), Instant::now() + time);
        let next = Rc::new(Cell::new(rand::random::<u64>() >> 1));
        for _ in 0..under_way {
            let (came, next) = (came.clone(), next.clone());
            tokio::task::spawn_local(async move {
                while Instant::now() < until {
                    let (n, begun) = (next.replace(next.get() + 1), Instant::now());
                    came.borrow_mut().asked += 1;
                    let result = self.operation(n).await;
                    came.borrow_mut().note(&result, begun, false);
                    if result.is_err() {
                        tokio::task::yield_now().await;
                    }
                }
            });
        }
        tokio::time::sleep_until(until.into()).await;
        came.replace(Came::new())
    }

    async fn open(&'static self, rate: f64, time: Duration) -> Came {
        let (came, begun) = (Rc::new(RefCell::new(Came::new())), Instant::now());
        let first = rand::random::<u64>() >> 1;
        let mut asked = 0;
        while begun.elapsed() < time {
            let due = (begun.elapsed().as_secs_f64() * rate) as u64;
            while asked < due {
                let intended = begun + Duration::from_secs_f64(asked as f64 / rate);
                self.begin(first + asked, intended, &came);
                asked += 1;
                if asked.is_multiple_of(BATCH) {
                    tokio::task::yield_now().await;
                }
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        came.borrow_mut().asked = asked;
        came.replace(Came::new())
    }

    /// Most are refused at once, which costs no task.
    fn begin(&'static self, n: u64, intended: Instant, came: &Rc<RefCell<Came>>) {
        let mut operation = self.operation(n);
        match operation.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(result) => came.borrow_mut().note(&result, intended, true),
            Poll::Pending => {
                let came = came.clone();
                tokio::task::spawn_local(async move {
                    let result = operation.await;
                    came.borrow_mut().note(&result, intended, false);
                });
            }
        }
    }
}
