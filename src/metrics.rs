//! Counters, gauges and histograms under etcd's names, cheap on the hot path.
