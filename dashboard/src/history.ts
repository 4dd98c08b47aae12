// Live connections over time, for the pictures: one sample a second, ten minutes of them.

const MAX_SAMPLES = 600;

type Series = (number | null)[];

export class History {
  readonly times: number[] = [];
  private readonly series = new Map<string, Series>();

  // Adds a sample. A key that is new has had no connections before; one that is missing has none now.
  push(time: number, values: Map<string, number>): void {
    this.add(time, (key) => values.get(key) ?? 0);
    for (const [key, value] of values) {
      if (this.series.has(key)) continue;
      const before: Series = new Array<number | null>(this.times.length - 1).fill(0);
      this.series.set(key, [...before, value]);
    }
    for (const [key, series] of this.series) {
      if (!values.has(key) && series.every((value) => !value)) this.series.delete(key);
    }
  }

  // Nothing is known of this moment: the picture has a gap.
  gap(time: number): void {
    this.add(time, () => null);
  }

  of(key: string): Series {
    return this.series.get(key) ?? new Array<number | null>(this.times.length).fill(0);
  }

  private add(time: number, value: (key: string) => number | null): void {
    this.times.push(time);
    for (const [key, series] of this.series) series.push(value(key));
    if (this.times.length <= MAX_SAMPLES) return;
    this.times.shift();
    for (const series of this.series.values()) series.shift();
  }
}
