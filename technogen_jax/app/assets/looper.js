// A loop without a gap: its samples lie in an AudioBuffer that the browser repeats from its own clock.
// A new loop takes over at the same place in the bar, by a short crossfade, at once or on the next bar line.
export function makeLooper() {
  const FADE_S = 0.015, SOON_S = 0.03;
  let context = null, master = null, buffer = null, level = 1, volume = 1, bars = 1, onTheBar = true, rate = 1;
  let now = null; // {source, gain, begin: when sample 0 of the loop was played, or would have been}
  let next = null; // the same, and `at`: when it takes over

  // Seconds into the loop.
  function place(voice, time) {
    const length = voice.source.buffer.duration;
    return ((((time - voice.begin) * rate) % length) + length) % length;
  }

  function start(time, offset, fadeIn) {
    const source = new AudioBufferSourceNode(context, { buffer, loop: true, playbackRate: rate });
    const gain = new GainNode(context, { gain: fadeIn ? 0 : 1 });
    const levelled = new GainNode(context, { gain: level }); // of this loop, so that all are equally loud
    if (fadeIn) gain.gain.setValueAtTime(0, time).linearRampToValueAtTime(1, time + FADE_S);
    source.connect(gain).connect(levelled).connect(master);
    source.start(time, offset);
    return { source, gain, levelled, begin: time - offset / rate, at: time };
  }

  function fadeOut(voice, time) {
    voice.gain.gain.setValueAtTime(1, time).linearRampToValueAtTime(0, time + FADE_S);
  }

  function settle() {
    if (next && context.currentTime >= next.at) { now = next; next = null; }
  }

  // What is not heard yet will not be.
  function dropNext() {
    settle();
    if (!next) return;
    next.source.stop();
    now.gain.gain.cancelScheduledValues(0).setValueAtTime(1, context.currentTime);
    next = null;
  }

  function takeOver() {
    dropNext();
    const old = now, inStep = old.source.buffer.duration === buffer.duration;
    let time = context.currentTime + SOON_S;
    const bar = old.source.buffer.duration / bars;
    if (onTheBar || !inStep) time += (bar - (place(old, time) % bar)) / rate;
    fadeOut(old, time);
    next = start(time, inStep ? place(old, time) : 0, true);
    // Not by stop(time): that could not be taken back if something newer comes before.
    setTimeout(() => { settle(); if (old !== now) old.source.stop(); }, (time + 2 * FADE_S - context.currentTime) * 1000);
  }

  return {
    get buffer() { return buffer; },
    get playing() { return Boolean(now); },
    get level() { return level; },
    get source() { return (next ?? now)?.source; },

    // `newLevel` is the gain of this loop.
    load(newBuffer, newBars, newOnTheBar, newLevel) {
      [buffer, bars, onTheBar, level] = [newBuffer, newBars || 1, newOnTheBar, newLevel];
      if (now) takeOver();
    },

    async play() {
      if (now || !buffer) return;
      // At the loop's own rate: what is heard is what was made.
      context ??= new AudioContext({ sampleRate: buffer.sampleRate });
      master ??= new GainNode(context, { gain: volume });
      master.connect(context.destination);
      await context.resume();
      if (now) return; // pressed twice
      now = start(context.currentTime + SOON_S, 0, false);
    },

    stop() {
      if (!now) return;
      dropNext();
      fadeOut(now, context.currentTime);
      now.source.stop(context.currentTime + FADE_S);
      now = null;
    },

    setVolume(newVolume) {
      volume = newVolume;
      master?.gain.setTargetAtTime(volume, context.currentTime, 0.01);
    },

    // Changes the gain of the loop that plays.
    setLevel(newLevel) {
      level = newLevel;
      for (const voice of [now, next]) voice?.levelled.gain.setTargetAtTime(level, context.currentTime, 0.01);
    },

    setRate(newRate) {
      if (newRate === rate) return;
      const waiting = now && (settle(), next);
      if (waiting) dropNext();
      if (now) {
        const time = context.currentTime;
        now.begin = time - ((time - now.begin) * rate) / newRate;
        now.source.playbackRate.setValueAtTime(newRate, time);
      }
      rate = newRate;
      if (waiting) takeOver();
    },

    // Share of the loop that has been played, 0 to 1; null when nothing plays.
    position() {
      if (!now) return null;
      settle();
      return place(now, context.currentTime) / now.source.buffer.duration;
    },
  };
}
