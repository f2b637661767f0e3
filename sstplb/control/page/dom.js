// Elements, and putting a fresh tree in place of an old one without disturbing what stays the same.
//
// Every part of the page is drawn as a whole from what is known, and `patch` changes only what
// differs: focus, selection and scroll position stay. So there are no handlers on drawn elements;
// they carry `data-do`, and app.js listens once for all. Text is only ever set as text: nothing
// that comes from the balancer is parsed as HTML.

const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);

// Return an element. `style` is an object; null, undefined and false leave an attribute out.
export function el(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

export function svg(name, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

function filled(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "style") Object.assign(made.style, value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children.flat(2)) {
    if (child !== null && child !== undefined && child !== false) made.append(child);
  }
  return made;
}

// Make `place` hold what `children` are.
export function show(place, ...children) {
  patchChildren(place, children.flat(2).filter((child) => child !== null && child !== undefined && child !== false));
}

export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function patchChildren(place, fresh) {
  const kept = new Map();
  for (const child of place.children) {
    if (keyOf(child)) kept.set(keyOf(child), child);
  }
  const stays = new Set(fresh.map(keyOf));
  let at = place.firstChild;
  for (const wanted of fresh) {
    const key = keyOf(wanted);
    // What is going makes room first, so that what stays need not be moved: moving loses the focus.
    while (at && keyOf(at) && !stays.has(keyOf(at))) at = removed(at);
    const known = key ? kept.get(key) : at;
    if (known && isLike(known, wanted)) {
      if (known === at) at = at.nextSibling;
      else place.insertBefore(known, at);
      patch(known, wanted);
    } else {
      place.insertBefore(typeof wanted === "string" ? document.createTextNode(wanted) : wanted, at);
    }
  }
  while (at) at = removed(at);
}

const keyOf = (node) => node.dataset?.key;

function removed(node) {
  const next = node.nextSibling;
  node.remove();
  return next;
}

function isLike(old, fresh) {
  if (typeof fresh === "string") return old.nodeType === Node.TEXT_NODE;
  return (
    old.nodeType === fresh.nodeType &&
    old.nodeName === fresh.nodeName &&
    keyOf(old) === keyOf(fresh)
  );
}

function patch(old, fresh) {
  if (old === fresh) return;
  if (old.nodeType === Node.TEXT_NODE) {
    const text = typeof fresh === "string" ? fresh : fresh.data;
    if (old.data !== text) old.data = text;
    return;
  }
  for (const { name } of [...old.attributes]) {
    if (name !== "style" && !fresh.hasAttribute(name)) old.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    if (name !== "style" && old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  // The style attribute itself is what the Content-Security-Policy forbids; its properties are not.
  if (old.style.cssText !== fresh.style.cssText) old.style.cssText = fresh.style.cssText;
  patchChildren(old, [...fresh.childNodes]);
}
