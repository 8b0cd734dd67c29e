// Charts, by uPlot. Colours are the style sheet's; the newest figures, or those under the pointer,
// stand as text above each chart.

import { find, make, say } from "./dom.js";

const HEIGHT = 150;
const charts = new Set();
const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

/** Draws a point that has no neighbour to draw a line to. */
function lonely(u, series, show, gaps) {
  const [x, y] = [u.data[0], u.data[series]];
  const points = [];
  for (let i = 0; i < x.length; i++) {
    const isAlone = (y[i - 1] ?? null) === null && (y[i + 1] ?? null) === null;
    if (y[i] !== null && y[i] !== undefined && isAlone) points.push(i);
  }
  return points;
}

export class Chart {
  /**
   * `series`: [{ label, color, value, scale }], `value` a function from a figure to its text.
   * `scales` and `axes` are uPlot's, but for the looks.
   */
  constructor(figure, { series, scales, axes, sync = null, height = HEIGHT, moment }) {
    this.figure = figure;
    figure.chart = this;
    this.options = { series, scales, axes, sync, height };
    this.moment = moment;
    this.data = [[], ...series.map(() => [])];
    const caption = find("figcaption", figure);
    const legend = make("p", "legend");
    this.values = series.map(({ label, color }) => {
      const key = make("span", "key");
      key.append(make("i", `swatch ${color}`), ` ${label} `);
      const value = key.appendChild(make("b", "", "–"));
      legend.append(key);
      return value;
    });
    this.when = legend.appendChild(make("span", "when"));
    caption.append(legend);
    this.place = figure.appendChild(make("div", "plot"));
    this.place.setAttribute("role", "img");
    this.build();
    this.resizing = new ResizeObserver(() => this.fit());
    this.resizing.observe(this.place);
    charts.add(this);
  }

  build() {
    this.plot?.destroy();
    const { series, scales, axes, sync, height } = this.options;
    const ink = color("muted"), line = color("line");
    const font = "12px system-ui, sans-serif";
    this.plot = new uPlot(
      {
        width: this.place.clientWidth || 300,
        height,
        padding: [10, 12, 0, 0],
        legend: { show: false },
        cursor: {
          y: false,
          drag: { setScale: false, x: false, y: false },
          points: { size: 7 },
          sync: sync ? { key: sync, setSeries: false } : undefined,
        },
        scales,
        axes: axes.map((axis) => ({
          stroke: ink,
          font,
          grid: { stroke: line, width: 1 },
          ticks: { show: false },
          gap: 6,
          ...axis,
        })),
        series: [
          {},
          ...series.map((one) => ({
            label: one.label,
            scale: one.scale ?? "y",
            stroke: color(one.color),
            width: 1.75,
            fill: one.isFilled ? `${color(one.color)}22` : undefined,
            points: { filter: lonely, size: 4 },
          })),
        ],
        hooks: { setCursor: [() => this.tell()] },
      },
      this.data,
      this.place,
    );
    this.fit();
  }

  fit() {
    const width = Math.floor(this.place.clientWidth);
    if (width > 0 && width !== this.plot.width) this.plot.setSize({ width, height: this.options.height });
  }

  show(data) {
    this.data = data;
    this.plot.setData(data);
    this.tell();
  }

  /** The figures under the pointer, else the newest. */
  tell() {
    const [x, ...columns] = this.data;
    const under = this.plot?.cursor.idx;
    const at = under ?? x.length - 1;
    columns.forEach((column, i) => {
      const value = column[at];
      say(this.values[i], value === null || value === undefined ? "–" : this.options.series[i].value(value));
    });
    say(this.when, under === null || under === undefined || x.length === 0 ? "" : this.moment(x[at]));
    const figures = this.values.map((value, i) => `${this.options.series[i].label} ${value.textContent}`);
    this.place.setAttribute("aria-label", `Chart: ${figures.join(", ")}`);
  }

  destroy() {
    charts.delete(this);
    this.resizing.disconnect();
    this.plot.destroy();
    find(".legend", this.figure).remove();
    this.place.remove();
  }
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  for (const chart of charts) chart.build();
});

/** From zero to a little above the highest. */
export const fromZero = (least) => (u, min, max) => [0, Math.max(least, (max ?? 0) * 1.08)];
