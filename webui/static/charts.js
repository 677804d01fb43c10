/** Small plots in SVG, and the timeline on a canvas. */
import { svg } from "./dom.js";

const WIDTH = 100;
const HEIGHT = 40;

/**
 * A line over time; the newest value is at the right.
 * @param {number[]} values
 * @param {number} slots how many values the whole width holds
 * @param {number[]} [second] a second line on the same scale
 * @returns {SVGElement}
 */
export function sparkline(values, slots, second = []) {
  const top = Math.max(1e-9, ...values, ...second) * 1.08;
  const line = points(values, slots, top);
  const children = [];
  if (values.length > 1) {
    const left = x(0, values.length, slots);
    children.push(svg("path", { class: "area", d: `M${left} ${HEIGHT}L${line}L${WIDTH} ${HEIGHT}Z` }));
    children.push(svg("polyline", { class: "line", points: line }));
  }
  if (second.length > 1) children.push(svg("polyline", { class: "line second", points: points(second, slots, top) }));
  return svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" }, ...children);
}

/**
 * @param {number[]} values
 * @param {number} slots
 * @param {number} top
 */
function points(values, slots, top) {
  return values.map((value, index) => `${x(index, values.length, slots)},${(HEIGHT - (value / top) * HEIGHT).toFixed(2)}`).join(" ");
}

/**
 * @param {number} index
 * @param {number} length
 * @param {number} slots
 */
function x(index, length, slots) {
  return (WIDTH * (1 - (length - 1 - index) / Math.max(1, slots - 1))).toFixed(2);
}

/**
 * @typedef {object} Span
 * @property {string} worker
 * @property {number} from ms
 * @property {number} to ms
 * @property {"ok" | "bad" | "lost" | "again" | "now"} kind
 */

const ROW = 22;
const RARE = new Set(["bad", "lost", "again"]);
const LABEL = 108;
const AXIS_WIDE = 320;

/**
 * Workers × time: one bar for each job that a worker executed.
 * @param {HTMLCanvasElement} canvas
 * @param {Span[]} spans
 * @param {string[]} workers
 * @param {number} now ms
 * @param {number} windowMs
 */
export function drawTimeline(canvas, spans, workers, now, windowMs) {
  const style = getComputedStyle(document.documentElement);
  const colour = (/** @type {string} */ name) => style.getPropertyValue(name).trim();
  const colours = { ok: colour("--accent"), bad: colour("--bad"), lost: colour("--muted"), again: colour("--warn"), now: colour("--accent") };
  const width = canvas.clientWidth;
  const height = Math.max(1, workers.length) * ROW + 22;
  const ratio = window.devicePixelRatio || 1;
  canvas.style.height = `${height}px`;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const context = canvas.getContext("2d");
  if (!context) return;
  context.scale(ratio, ratio);
  context.font = `12px ${style.getPropertyValue("--font")}`;
  context.textBaseline = "middle";
  const place = (/** @type {number} */ at) => LABEL + ((at - now + windowMs) / windowMs) * (width - LABEL);
  drawRows(context, workers, width, colour("--muted"), colour("--sunken"));
  // What went wrong is drawn last and never thinner than the eye finds among a thousand others.
  const ordered = [...spans].sort((one, other) => Number(RARE.has(one.kind)) - Number(RARE.has(other.kind)));
  for (const span of ordered) {
    const rare = RARE.has(span.kind);
    const row = workers.indexOf(span.worker);
    if (row < 0 || span.to < now - windowMs) continue;
    const left = Math.max(LABEL, place(span.from));
    const wide = Math.max(rare ? 3 : 1.5, place(span.to) - left - 0.5);
    context.fillStyle = colours[span.kind];
    context.globalAlpha = span.kind === "now" ? 0.3 : rare ? 1 : 0.8;
    context.fillRect(left, row * ROW + 4, wide, ROW - 8);
  }
  context.globalAlpha = 1;
  drawAxis(context, workers.length * ROW + 11, width, windowMs, colour("--muted"));
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {string[]} workers
 * @param {number} width
 * @param {string} muted
 * @param {string} sunken
 */
function drawRows(context, workers, width, muted, sunken) {
  workers.forEach((worker, row) => {
    context.fillStyle = sunken;
    context.fillRect(LABEL, row * ROW + 4, width - LABEL, ROW - 8);
    context.fillStyle = muted;
    context.fillText(worker.length > 15 ? `${worker.slice(0, 14)}…` : worker, 0, row * ROW + ROW / 2);
  });
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {number} y
 * @param {number} width
 * @param {number} windowMs
 * @param {string} muted
 */
function drawAxis(context, y, width, windowMs, muted) {
  context.fillStyle = muted;
  // On a phone five labels would run into each other.
  for (const part of width - LABEL < AXIS_WIDE ? [0, 0.5, 1] : [0, 0.25, 0.5, 0.75, 1]) {
    const seconds = Math.round(((1 - part) * windowMs) / 1000);
    context.textAlign = part === 0 ? "left" : part === 1 ? "right" : "center";
    context.fillText(seconds ? `−${seconds} s` : "now", LABEL + part * (width - LABEL), y);
  }
  context.textAlign = "left";
}
