//! Times the hot path; for profiling.
use std::time::Instant;
use store::{Config, CreateOptions, Store};

fn time(name: &str, count: u64, mut work: impl FnMut(u64)) {
    let mut best = f64::MAX;
    for _ in 0..5 {
        let start = Instant::now();
        (0..count).for_each(&mut work);
        best = best.min(start.elapsed().as_nanos() as f64 / count as f64);
    }
    println!("{name:32} {best:8.2} ns");
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let store = Store::in_process(Config { capacity_bytes: 4 << 30, ..Config::default() })?;
    let word = std::sync::atomic::AtomicU64::new(0);
    use std::sync::atomic::Ordering::SeqCst;
    time("rmw pair", 10_000_000, |_| { word.fetch_add(1, SeqCst); word.fetch_sub(1, SeqCst); });
    let object = store.put(&[7; 100])?;
    let id = object.id();
    time("view by handle", 10_000_000, |_| { std::hint::black_box(store.view(&object).unwrap()[0]); });
    time("view by id", 10_000_000, |_| { std::hint::black_box(store.view_by_id(&id).unwrap()[0]); });
    let by_handle = CreateOptions { by_handle_only: true, ..Default::default() };
    for live in [0u64, 1_000_000] {
        let kept: Vec<_> = (0..live).map(|_| store.put(&[3; 100]).unwrap()).collect();
        println!("{live} live: {:?}", store.usage().metadata_bytes);
        for (name, options) in [("put 100 B", &CreateOptions::default()), ("put 100 B by handle", &by_handle)] {
            let mut best = f64::MAX;
            let mut free = f64::MAX;
            for _ in 0..50 {
                let start = Instant::now();
                let made: Vec<_> = (0..1000).map(|_| store.put_with(&[5; 100], options).unwrap()).collect();
                best = best.min(start.elapsed().as_nanos() as f64 / 1000.0);
                let start = Instant::now();
                drop(made);
                free = free.min(start.elapsed().as_nanos() as f64 / 1000.0);
            }
            println!("{name:32} {best:8.2} ns, free {free:8.2}");
        }
        let start = Instant::now();
        drop(kept);
        println!("drop {live}: {:?}", start.elapsed());
    }
    let source = vec![9u8; 100 << 20];
    let mut sink = vec![1u8; 100 << 20];
    for _ in 0..4 {
        let start = Instant::now();
        sink.copy_from_slice(&source);
        println!("memcpy {:.1} GB/s", source.len() as f64 / start.elapsed().as_nanos() as f64);
    }
    for _ in 0..4 {
        let start = Instant::now();
        let made = store.put(&source)?;
        println!("put 100 MiB {:.1} GB/s", source.len() as f64 / start.elapsed().as_nanos() as f64);
        drop(made);
    }
    println!("{:?}", store.usage());
    Ok(())
}
