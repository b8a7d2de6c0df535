// Requests to the server. An OfflineError is worth trying again; other errors say what is wrong.
export class OfflineError extends Error {}

export async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new OfflineError("The server does not answer.");
  }
  if (answer.status === 503) throw new OfflineError(await answer.text());
  if (!answer.ok) throw new Error(await answer.text());
  return answer.status === 204 ? null : answer.json();
}

export const wait = (ms) => new Promise((done) => setTimeout(done, ms));

export function bytes(text) {
  const letters = atob(text), found = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i++) found[i] = letters.charCodeAt(i);
  return found;
}

export function toBuffer(made) {
  const pcm = new Int16Array(bytes(made.pcm).buffer);
  const buffer = new AudioBuffer({ length: made.samples, numberOfChannels: made.channels, sampleRate: made.rate_hz });
  for (let channel = 0; channel < made.channels; channel++) {
    const into = buffer.getChannelData(channel);
    for (let i = 0; i < made.samples; i++) into[i] = pcm[i * made.channels + channel] / 32768;
  }
  return buffer;
}
