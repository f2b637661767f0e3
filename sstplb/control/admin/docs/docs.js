// Draws openapi.json: an entry per operation, with what it takes and an example of each answer.
"use strict";

const METHODS = ["get", "post", "put", "delete"];

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function resolved(schema, all) {
  return schema && schema.$ref ? all.components.schemas[schema.$ref.split("/").pop()] : schema || {};
}

// A schema as the value it describes, types standing for values.
function example(given, all, depth = 0) {
  const schema = resolved(given, all);
  if (depth > 6) return "…";
  if (schema.anyOf || schema.oneOf) {
    const shown = (schema.anyOf || schema.oneOf).map((one) => example(one, all, depth + 1));
    return shown.every((one) => typeof one === "string") ? shown.join(" | ") : shown[0];
  }
  if (schema.enum) return schema.enum.join(" | ");
  if (schema.const !== undefined) return String(schema.const);
  if (schema.type === "array") return [example(schema.items, all, depth + 1)];
  if (schema.properties) {
    return Object.fromEntries(
      Object.entries(schema.properties).map(([key, one]) => [key, example(one, all, depth + 1)]),
    );
  }
  return Array.isArray(schema.type) ? schema.type.join(" | ") : schema.type || "any";
}

function json(schema, all) {
  return element("pre", {}, JSON.stringify(example(schema, all), null, 2));
}

function parameters(operation, all) {
  const rows = (operation.parameters || []).map((one) =>
    element("tr", {},
      element("td", {}, element("code", {}, one.name)),
      element("td", {}, one.in + (one.required ? ", required" : "")),
      element("td", {}, String(example(one.schema, all))),
      element("td", {}, one.description || ""),
    ),
  );
  if (!rows.length) return [];
  const head = ["name", "where", "kind", ""].map((text) => element("th", { scope: "col" }, text));
  return [element("table", {}, element("tr", {}, ...head), ...rows)];
}

function drawn(method, path, operation, all) {
  const parts = parameters(operation, all);
  const body = operation.requestBody && operation.requestBody.content["application/json"];
  if (body) parts.push(element("h4", {}, "Sent"), json(body.schema, all));
  for (const [status, answer] of Object.entries(operation.responses)) {
    if (status === "4XX" || status === "422") continue;
    const content = answer.content && answer.content["application/json"];
    parts.push(element("h4", {}, `Answer ${status}`));
    if (content) parts.push(json(content.schema, all));
  }
  return element("details", {},
    element("summary", {},
      element("b", { class: method }, method.toUpperCase()),
      element("code", {}, path),
      element("span", {}, operation.description || operation.summary || ""),
    ),
    element("div", { class: "body" }, ...parts),
  );
}

async function draw() {
  const main = document.getElementById("operations");
  const answer = await fetch("/openapi.json");
  if (!answer.ok) throw new Error(`openapi.json: ${answer.status}`);
  const all = await answer.json();
  document.getElementById("about").textContent = `${all.info.description} Version ${all.info.version}.`;
  const groups = new Map();
  for (const [path, operations] of Object.entries(all.paths)) {
    for (const method of METHODS.filter((one) => operations[one])) {
      const tag = (operations[method].tags || ["other"])[0];
      if (!groups.has(tag)) groups.set(tag, []);
      groups.get(tag).push(drawn(method, path, operations[method], all));
    }
  }
  main.replaceChildren();
  for (const [tag, drawings] of groups) {
    document.getElementById("groups").append(element("a", { href: `#${tag}` }, tag));
    main.append(element("h2", { id: tag }, tag), ...drawings);
  }
  main.append(
    element("h2", { id: "errors" }, "errors"),
    element("p", {}, "Whatever goes wrong is said in one shape:"),
    json({ $ref: "#/components/schemas/Failure" }, all),
  );
}

draw().catch((error) => {
  document.getElementById("operations").replaceChildren(element("p", { role: "alert" }, String(error)));
});
