/**
 * Round-trip time and retransmission timer. RFC 6298, "The Basic Algorithm" and "Managing the RTO Timer".
 *
 * The lower bound of one second is the RFC's: on a wire that hardly ever loses, a spurious retransmission costs more than a late one.
 * The state is plain and belongs to the connection.
 */
export interface RoundTrip {
  /** Smoothed, ns; 0 before the first measurement. */
  smoothed: number;
  variance: number;
  /** ns, with the back-off of retransmissions in it. */
  timeout: number;
}

const GRANULARITY_NS = 1e6;
export const INITIAL_TIMEOUT_NS = 1e9;
const MIN_TIMEOUT_NS = 1e9;
export const MAX_TIMEOUT_NS = 60e9;
/** RFC 6298 (5.7): the timer of a connection whose SYN had to be repeated starts from three seconds. */
const AFTER_SYN_LOSS_NS = 3e9;

export const freshRoundTrip = (): RoundTrip => ({
  smoothed: 0,
  variance: 0,
  timeout: INITIAL_TIMEOUT_NS,
});

export function measured(rtt: RoundTrip, sample: number): void {
  if (rtt.smoothed === 0) {
    rtt.smoothed = sample;
    rtt.variance = sample / 2;
  } else {
    rtt.variance = 0.75 * rtt.variance + 0.25 * Math.abs(rtt.smoothed - sample);
    rtt.smoothed = 0.875 * rtt.smoothed + 0.125 * sample;
  }
  forgetBackOff(rtt);
}

/** New data was acknowledged: the timeout that the measurements ask for. */
export function forgetBackOff(rtt: RoundTrip): void {
  if (rtt.smoothed === 0) return;
  const wanted = Math.ceil(rtt.smoothed + Math.max(GRANULARITY_NS, 4 * rtt.variance));
  rtt.timeout = Math.min(Math.max(wanted, MIN_TIMEOUT_NS), MAX_TIMEOUT_NS);
}

export function backOff(rtt: RoundTrip): void {
  rtt.timeout = Math.min(rtt.timeout * 2, MAX_TIMEOUT_NS);
}

export function afterSynLoss(rtt: RoundTrip): void {
  if (rtt.smoothed === 0) rtt.timeout = AFTER_SYN_LOSS_NS;
}
