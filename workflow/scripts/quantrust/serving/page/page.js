"use strict";
const find = (id) => document.getElementById(id);
const form = find("ask");
let model = null;

/* Numbers have as many digits as tell a confidence from its threshold, and both from 0 and 1. */
function toldApart(confidence, threshold) {
  const pair = [confidence, threshold];
  for (let digits = 4; digits <= 20; digits += 1) {
    const texts = pair.map((value) => value.toFixed(digits));
    const seen = texts.map(Number);
    const rounded = seen.some((value, place) => Number.isInteger(value) && value !== pair[place]);
    const mixedUp = seen[0] < seen[1] !== confidence < threshold || seen[0] > seen[1] !== confidence > threshold;
    if (!rounded && !mixedUp) return texts;
  }
  return pair.map(String);
}

const inPercent = (share) => `${Number((100 * share).toPrecision(12))} %`;

function headers() {
  const key = find("key").value;
  return key ? { Authorization: `Bearer ${key}` } : {};
}

/* Answers of the server, or its error as one. */
async function call(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("The server cannot be reached. Is it still running?");
  }
  let content;
  try {
    content = await response.json();
  } catch {
    throw new Error(`The server answered with status ${response.status}, and nothing that can be read.`);
  }
  if (response.status === 401) {
    find("key-field").hidden = false;
    find("key").required = true;
    find("key").focus();
  }
  if (!response.ok) throw new Error(content.error ? content.error.message : `Status ${response.status}`);
  return content;
}

async function learnModel() {
  const [found] = (await call("/v1/models", { headers: headers() })).data;
  model = found;
  const { risk, asked, operating_points: points, limits } = model.quantrust;
  /* Where the same is asked about every image, there is nothing to type. */
  find("question-field").hidden = asked !== null;
  find("question").required = asked === null;
  find("waiting").textContent = asked === null ? "Choose an image and ask a question." : "Choose an image.";
  find("about").textContent = `${model.id} answers only if it is sure enough. Otherwise it abstains.`;
  find("image-limit").textContent = `, at most ${Math.floor((limits.body_bytes * 3) / 4 / 1048576)} MB and ${limits.pixels / 1e6} million pixels`;
  find("risk").replaceChildren(
    ...points.map((point) => {
      const option = new Option(inPercent(point.risk_limit) + (point.certified ? ", certified" : ""), String(point.risk_limit));
      option.selected = point.risk_limit === risk;
      return option;
    }),
  );
}

function readAsUrl(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(new Error("The image cannot be read. Choose it again."));
    reader.readAsDataURL(file);
  });
}

function complain(error) {
  find("waiting").hidden = find("reply").hidden = true;
  find("trouble").hidden = false;
  find("trouble").textContent = error.message;
}

function show(completion) {
  const { confidence, abstained, operating_point: point, note } = completion.quantrust;
  const [seen, limit] = toldApart(confidence, point.threshold);
  find("waiting").hidden = find("trouble").hidden = true;
  find("reply").hidden = false;
  find("result").className = abstained ? "abstained" : "answered";
  find("sign").textContent = abstained ? "✕" : "✓";
  find("answer").textContent = abstained ? "No answer" : completion.choices[0].message.content;
  find("why").textContent = abstained
    ? `The model abstains: its confidence of ${seen} is below the threshold of ${limit}.`
    : `Its confidence of ${seen} is not below the threshold of ${limit}.`;
  find("confidence").textContent = seen;
  find("threshold").textContent = limit;
  find("limit").textContent = inPercent(point.risk_limit);
  find("certified").textContent = point.certified ? `yes: found in a way that keeps the limit with a probability of ${inPercent(1 - point.delta)}` : "no";
  find("note").hidden = !note;
  find("note").textContent = note ? `Note: ${note}.` : "";
  find("tokens").textContent = `${completion.usage.prompt_tokens} in, ${completion.usage.completion_tokens} out`;
  /* Scores that are no probabilities have no scale to be drawn on. */
  const drawn = [confidence, point.threshold].every((value) => value >= 0 && value <= 1);
  find("drawing").hidden = !drawn;
  if (drawn) {
    find("bar").style.width = `${100 * confidence}%`;
    find("mark").style.left = `${100 * point.threshold}%`;
  }
}

find("image").addEventListener("change", () => {
  const [file] = find("image").files;
  const preview = find("preview");
  if (preview.src) URL.revokeObjectURL(preview.src);
  preview.hidden = !file;
  if (!file) return;
  preview.onload = () => preview.classList.toggle("small", preview.naturalWidth < 200);
  preview.src = URL.createObjectURL(file);
  preview.alt = `The chosen image, ${file.name}`;
});

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  if (find("send").getAttribute("aria-disabled") === "true") return;
  find("send").setAttribute("aria-disabled", "true");
  find("send").textContent = "Asking";
  find("result").setAttribute("aria-busy", "true");
  try {
    if (model === null) await learnModel();
    const [file] = find("image").files;
    const content = [{ type: "image_url", image_url: { url: await readAsUrl(file) } }];
    if (model.quantrust.asked === null) content.unshift({ type: "text", text: find("question").value });
    const body = { model: model.id, messages: [{ role: "user", content }], risk: Number(find("risk").value) };
    show(
      await call("/v1/chat/completions", {
        method: "POST",
        headers: { "Content-Type": "application/json", ...headers() },
        body: JSON.stringify(body),
      }),
    );
  } catch (error) {
    complain(error);
  } finally {
    find("send").removeAttribute("aria-disabled");
    find("send").textContent = "Ask";
    find("result").setAttribute("aria-busy", "false");
  }
});

learnModel()
  .catch(complain)
  .finally(() => document.documentElement.setAttribute("data-ready", ""));
