/**
 * Building elements. Text goes in as text nodes only: nothing that a user or a
 * file name says is ever read as markup.
 */

/** @typedef {Node | string | number | null | undefined | false} Child */

/**
 * Make an element. Properties that begin with `on` are listeners, `class`,
 * `aria-*` and `data-*` are attributes, the rest are properties.
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {Record<string, any>} [props]
 * @param {...Child} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "class") element.className = value;
    else if (name.includes("-") || name === "role") element.setAttribute(name, String(value));
    else /** @type {any} */ (element)[name] = value;
  }
  append(element, children);
  return element;
}

/**
 * @param {Element} parent
 * @param {Child[]} children
 */
export function append(parent, children) {
  for (const child of children) {
    if (child === null || child === undefined || child === false) continue;
    parent.append(child instanceof Node ? child : String(child));
  }
}

/**
 * @param {string} tag
 * @param {Record<string, string | number>} attributes
 * @param {...SVGElement} children
 * @returns {SVGElement}
 */
export function svg(tag, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  element.append(...children);
  return element;
}

/**
 * The element with an id; the page has it or the page is broken.
 * @template {HTMLElement} T
 * @param {string} id
 * @returns {T}
 */
export function byId(id) {
  const element = document.getElementById(id);
  if (!element) throw new Error(`the page has no #${id}`);
  return /** @type {T} */ (element);
}

/**
 * Set text only where it differs, so that unchanged nodes aren't laid out again.
 * @param {Element} element
 * @param {string} text
 */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

const ICONS = {
  close: "M4 4l8 8M12 4l-8 8",
  retry: "M13 8a5 5 0 1 1-1.6-3.7M13 2v3h-3",
  cancel: "M8 2.500a5.500 5.500 0 1 0 0 11 5.500 5.500 0 0 0 0-11M4.200 4.200l7.600 7.600",
  remove: "M3 4.500h10M6.500 4V2.500h3V4M4.500 4.500l.6 9h5.800l.6-9",
};

/**
 * A round button with a drawn sign and a name for screen readers.
 * @param {keyof typeof ICONS} sign
 * @param {string} label
 * @param {(event: Event) => void} onclick
 * @returns {HTMLButtonElement}
 */
export function iconButton(sign, label, onclick) {
  const path = svg("path", {
    d: ICONS[sign], fill: "none", stroke: "currentColor",
    "stroke-width": 1.6, "stroke-linecap": "round", "stroke-linejoin": "round",
  });
  const button = h("button", { class: "icon", type: "button", title: label, "aria-label": label, onclick });
  button.append(svg("svg", { viewBox: "0 0 16 16", "aria-hidden": "true" }, path));
  return button;
}

/**
 * Call at most once a frame, however often it is asked for.
 * @param {() => void} draw
 * @returns {() => void}
 */
export function oncePerFrame(draw) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      draw();
    });
  };
}
