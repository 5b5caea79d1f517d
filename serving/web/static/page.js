// Shows results without reloading: photos that are chosen, dropped or pasted are
// posted to the form's address one by one, and each gets a card with a preview
// and its scores. All texts are in the form's data attributes, in the visitor's
// language.
'use strict';

(function () {
  const form = document.getElementById('upload');
  const input = document.getElementById('file');
  const results = document.getElementById('results');
  const cards = document.getElementById('cards');
  if (!form || !window.fetch || !window.URL) return;
  const text = form.dataset;
  // While the server classifies one photo, the next one is uploaded.
  const MAX_UPLOADS = 2;
  const MAX_TRIES = 5;
  const queue = [];
  let running = 0;

  function element(name, className, content) {
    const made = document.createElement(name);
    if (className) made.className = className;
    if (content) made.textContent = content;
    return made;
  }

  function fail(card, sentence) {
    const line = element('p', 'error', sentence);
    line.setAttribute('role', 'alert');
    card.querySelector('.status').replaceWith(line);
  }

  function show(card, photo) {
    const table = element('table', 'scores');
    table.append(element('caption', '', text.scores));
    const body = table.createTBody();
    photo.classes.forEach(function (label, index) {
      const score = photo.probabilities[index];
      const row = body.insertRow();
      const name = element('th', '', label);
      name.scope = 'row';
      const percent = element('td', 'percent', (100 * score).toFixed(1) + ' %');
      const bar = element('td', 'bar');
      const progress = element('progress');
      progress.max = 1;
      progress.value = score;
      progress.setAttribute('aria-label', label);
      bar.append(progress);
      row.append(name, percent, bar);
    });
    const unknown = photo.known === false;
    const heading = element('h3', '', unknown ? text.noneOf : photo.classes[0]);
    card.querySelector('.status').replaceWith(heading);
    if (unknown) heading.after(element('p', 'note', text.unknown));
    card.querySelector('.result').append(table);
  }

  function wait(seconds) {
    return new Promise(function (done) { setTimeout(done, 1000 * seconds); });
  }

  async function post(file, card) {
    for (let tries = 1; ; tries++) {
      const body = new FormData();
      body.append('file', file);
      const response = await fetch(form.action, {
        method: 'POST', body: body, headers: {Accept: 'application/json'},
      });
      const retryAfter = response.headers.get('Retry-After');
      if (![429, 503].includes(response.status) || !retryAfter || tries === MAX_TRIES) {
        return response.json();
      }
      card.querySelector('.status').textContent = text.queued;
      await wait(Math.min(Number(retryAfter) || 1, 30));
    }
  }

  async function classify(file, card) {
    if (file.size > Number(text.maxBytes)) {
      return fail(card, text.tooLarge.split('{file}').join(file.name));
    }
    let reply;
    try {
      reply = await post(file, card);
    } catch (error) {
      return fail(card, text.noAnswer);
    }
    if (reply.error) return fail(card, reply.error.message);
    show(card, reply.photos[0]);
  }

  function next() {
    while (running < MAX_UPLOADS && queue.length) {
      const job = queue.shift();
      running++;
      classify(job.file, job.card).catch(function () {
        fail(job.card, text.noAnswer);
      }).finally(function () {
        running--;
        next();
      });
    }
  }

  function makeJob(file) {
    const card = element('article', 'card');
    card.append(element('p', 'status note', text.waiting));
    const result = element('div', 'result');
    const image = element('img', 'photo');
    image.alt = text.photo;
    image.src = URL.createObjectURL(file);
    image.addEventListener('load', function () {
      URL.revokeObjectURL(image.src);
    });
    image.addEventListener('error', function () {
      URL.revokeObjectURL(image.src);
      image.remove();  // Not an image; the response says so.
    });
    result.append(image);
    card.append(result);
    return {file: file, card: card};
  }

  function addAll(files) {
    const most = Number(text.maxPhotos);
    const list = Array.from(files);
    if (!list.length) return;
    results.hidden = false;
    const jobs = list.slice(0, most).map(makeJob);
    // The newest selection comes first, with its photos in their order.
    cards.prepend(...jobs.map(function (job) { return job.card; }));
    queue.push(...jobs);
    if (list.length > most) {
      cards.prepend(element('p', 'error', text.tooMany));
    }
    next();
  }

  form.addEventListener('submit', function (event) {
    event.preventDefault();
    addAll(input.files);
    form.reset();
  });
  input.addEventListener('change', function () { form.requestSubmit(); });
  document.addEventListener('paste', function (event) {
    if (event.clipboardData.files.length) event.preventDefault();
    addAll(event.clipboardData.files);
  });
  document.addEventListener('dragover', function (event) {
    event.preventDefault();
    document.body.classList.add('dropping');
  });
  document.addEventListener('dragleave', function (event) {
    if (!event.relatedTarget) document.body.classList.remove('dropping');
  });
  document.addEventListener('drop', function (event) {
    event.preventDefault();
    document.body.classList.remove('dropping');
    addAll(event.dataTransfer.files);
  });
  document.querySelectorAll('.scripted').forEach(function (part) {
    part.hidden = false;
  });
})();
