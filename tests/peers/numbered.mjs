// Numbered messages: four bytes of number, then bytes that follow from it, so that a loss, a swap, a cut and a wrong byte all show.

const MAX_BYTES = 2_000;
// Now and then one that does not fit a socket's buffers at once.
const LARGE_BYTES = 100_000;
const LARGE_EVERY = 97;

function length(number) {
  if (number % LARGE_EVERY === LARGE_EVERY - 1) return LARGE_BYTES;
  return 4 + (Math.imul(number + 1, 2654435761) >>> 0) % MAX_BYTES;
}

// Of every number's text the same bytes at another place.
const pattern = Buffer.alloc(LARGE_BYTES + 251);
for (let i = 0; i < pattern.length; i++) pattern[i] = (i * 7) % 251;

function message(number) {
  const bytes = Buffer.from(pattern.subarray(number % 251, (number % 251) + length(number)));
  bytes.writeUInt32BE(number, 0);
  return bytes;
}

export class Outflow {
  count = 0;

  next() {
    return message(this.count++);
  }
}

export class Inflow {
  count = 0;

  // What is wrong with the next message, if anything is.
  take(bytes) {
    const number = bytes.length >= 4 ? bytes.readUInt32BE(0) : "none";
    if (number !== this.count) return `number ${number} in place of ${this.count}`;
    if (!bytes.equals(message(number))) return `message ${number} has other bytes than were sent`;
    this.count += 1;
  }
}

// Does `act` for each of a changing set once per interval in the mean, spread evenly: as many timers as messages would be the load.
export function every(interval, all, act) {
  const TICK = 20;
  let debt = 0;
  let last = Date.now();
  let cursor = all.values();
  setInterval(() => {
    const now = Date.now();
    debt = Math.min(debt + (all.size * (now - last)) / interval, all.size);
    last = now;
    for (; debt >= 1; debt -= 1) {
      let { value, done } = cursor.next();
      if (done) {
        cursor = all.values();
        ({ value, done } = cursor.next());
        if (done) return;
      }
      act(value);
    }
  }, TICK);
}
