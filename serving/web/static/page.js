// Shows results without reloading: photos that are chosen, taken, dropped or
// pasted are posted to the form's address one by one, and each gets a card with
// a preview and its scores. All texts are in the form's data attributes, in the
// visitor's language.
'use strict';

(function () {
  const form = document.getElementById('upload');
  const results = document.getElementById('results');
  const cards = document.getElementById('cards');
  if (!form || !window.fetch || !window.URL) return;
  const text = form.dataset;
  const clear = document.getElementById('clear');
  const wrong = document.getElementById('wrong');
  const announcer = document.getElementById('announcer');
  // While the server classifies one photo, the next one is uploaded.
  const MAX_UPLOADS = 2;
  const MAX_TRIES = 5;
  // Width in pixels below which one result fills the screen, as in style.css.
  const NARROW = '(max-width: 32rem)';
  let queue = [];
  let running = 0;
  // Of the photos on the page: how many there are, and how many have scores.
  let count = 0;
  let done = 0;

  function element(name, className, content) {
    const made = document.createElement(name);
    if (className) made.className = className;
    if (content) made.textContent = content;
    return made;
  }

  function fill(template, values) {
    return template.replace(/{(\w+)}/g, function (whole, name) {
      return name in values ? values[name] : whole;
    });
  }

  function showCount() {
    document.getElementById('done').textContent = fill(
        text.done, {done: done, count: count});
  }

  function fail(job, sentence) {
    const status = job.card.querySelector('.status');
    if (!status) return;
    const line = element('p', 'error', sentence);
    line.setAttribute('role', 'alert');
    status.replaceWith(line);
    job.card.classList.add('failed');
    // The server's sentences begin with the name of the file.
    if (sentence.startsWith(job.file.name)) job.card.querySelector('.file').remove();
  }

  function makeTable(photo) {
    const table = element('table', 'scores');
    table.append(element('caption', '', text.scores));
    const body = table.createTBody();
    photo.classes.forEach(function (label, index) {
      const row = body.insertRow();
      const name = element('th', '', label);
      name.scope = 'row';
      const bar = element('td', 'bar');
      const progress = element('progress');
      progress.max = 1;
      progress.value = photo.probabilities[index];
      progress.setAttribute('aria-label', label);
      bar.append(progress);
      row.append(name, element('td', 'percent', percent(photo, index)), bar);
    });
    return table;
  }

  function percent(photo, index) {
    return (100 * photo.probabilities[index]).toFixed(1) + ' %';
  }

  function show(job, photo) {
    const unknown = photo.known === false;
    const heading = element('h3', '', unknown ? text.noneOf : photo.classes[0]);
    const result = job.card.querySelector('.result');
    job.card.querySelector('.status').replaceWith(heading);
    if (unknown) {
      const forced = element('details', 'forced');
      forced.append(element('summary', '', text.forced), makeTable(photo));
      heading.after(element('p', 'note', text.unknown));
      result.append(forced);
    } else {
      result.append(makeTable(photo));
    }
    if (text.why) job.card.append(makeWhy(job, photo));
    if (wrong) job.card.append(makeWrong(job, unknown ? '' : photo.classes[0]));
    done++;
    announcer.textContent = fill(text.ofFile, {
      file: job.file.name,
      text: heading.textContent + (unknown ? '' : ', ' + percent(photo, 0)),
    });
  }

  // A button that asks for the heat map of the photo and for the training photos
  // nearest to it, and shows them in its place.
  function makeWhy(job, photo) {
    const why = element('section', 'why');
    const button = element('button', 'quiet', text.why);
    button.type = 'button';
    button.addEventListener('click', function () {
      why.replaceChildren(element('p', 'status note', text.waiting));
      explain(job, why, photo.classes, '');
    });
    why.append(button);
    return why;
  }

  async function explain(job, why, classes, label) {
    let reply;
    try {
      reply = await post(job, why, label);
    } catch (error) {
      reply = {error: {message: text.noAnswer}};
    }
    if (job.abort.signal.aborted) return;
    const photo = reply.error ? reply : reply.photos[0];
    if (photo.error) {
      const line = element('p', 'error', photo.error.message);
      line.setAttribute('role', 'alert');
      return why.replaceChildren(line);
    }
    const result = element('div', 'result');
    result.append(makeHeatMap(job, why, classes, photo.heat_map));
    if (photo.nearest) result.append(makeNearest(photo.nearest));
    why.replaceChildren(result);
    announcer.textContent = why.querySelector('.explanation').textContent;
  }

  function makeHeatMap(job, why, classes, heatMap) {
    const part = element('div');
    if (heatMap.picture) {
      const image = element('img', 'photo');
      image.alt = text.heatMap;
      image.src = heatMap.picture;
      part.append(image);
    } else {
      part.append(element('p', 'note', text.noPicture));
    }
    const isPositive = heatMap.values.some(function (row) {
      return row.some(function (value) { return value > 0; });
    });
    part.append(element('p', 'note explanation', fill(
        isPositive ? text.whyMap : text.whyNothing, {label: heatMap.class})));
    const chooser = element('label', 'note', text.whyClass + ' ');
    const select = element('select');
    classes.forEach(function (label) {
      select.append(new Option(label, label, false, label === heatMap.class));
    });
    select.addEventListener('change', function () {
      explain(job, why, classes, select.value).then(function () {
        const other = why.querySelector('select');
        if (other) other.focus();
      });
    });
    chooser.append(select);
    part.append(chooser);
    return part;
  }

  function makeNearest(photos) {
    const part = element('div');
    part.append(element('p', 'note', text.nearest));
    const list = element('ul', 'labels pictures');
    photos.forEach(function (photo) {
      const item = element('li');
      if (photo.picture) {
        const image = element('img', 'example');
        image.alt = '';
        image.src = photo.picture;
        item.append(image);
      }
      item.append(element('span', '', photo.class + ' ' + photo.similarity.toFixed(2)));
      list.append(item);
    });
    part.append(list);
    return part;
  }

  // The form with which the visitor says what is right.
  function makeWrong(job, answer) {
    const part = wrong.content.firstElementChild.cloneNode(true);
    const correction = part.querySelector('form');
    correction.elements.file.closest('label').remove();
    correction.elements.answer.value = answer;
    correction.addEventListener('submit', async function (event) {
      event.preventDefault();
      const button = correction.querySelector('button');
      const body = new FormData(correction);
      body.append('file', job.file);
      button.disabled = true;
      let sentence = text.noAnswer;
      try {
        const response = await fetch(correction.action, {
          method: 'POST', body: body, headers: {Accept: 'application/json'},
        });
        if (response.ok) {
          const thanks = element('p', 'note thanks', wrong.dataset.thanks);
          thanks.setAttribute('role', 'status');
          return part.replaceWith(thanks);
        }
        sentence = (await response.json()).error.message;
      } catch (error) { /* There was no answer. */ }
      button.disabled = false;
      part.querySelectorAll('.error').forEach(function (line) { line.remove(); });
      const line = element('p', 'error', sentence);
      line.setAttribute('role', 'alert');
      correction.after(line);
    });
    return part;
  }

  function wait(seconds, signal) {
    return new Promise(function (resolve) {
      setTimeout(resolve, 1000 * seconds);
      signal.addEventListener('abort', resolve);
    });
  }

  // Returns the reply for a photo; shows in an element that the server is busy.
  // With a label, also requests the heat map of that class ('': of the best).
  async function post(job, place, label) {
    for (let tries = 1; ; tries++) {
      const body = new FormData();
      body.append('file', job.file);
      if (label !== undefined) body.append('explain', label);
      const response = await fetch(form.action, {
        method: 'POST', body: body, headers: {Accept: 'application/json'},
        signal: job.abort.signal,
      });
      const retryAfter = response.headers.get('Retry-After');
      if (![429, 503].includes(response.status) || !retryAfter || tries === MAX_TRIES) {
        return response.json();
      }
      const status = place.querySelector('.status');
      if (status) status.textContent = text.queued;
      await wait(Math.min(Number(retryAfter) || 1, 30), job.abort.signal);
    }
  }

  async function classify(job) {
    if (job.file.size > Number(text.maxBytes)) {
      return fail(job, fill(text.tooLarge, {file: job.file.name}));
    }
    const reply = await post(job, job.card);
    if (job.abort.signal.aborted) return;
    if (reply.error) return fail(job, reply.error.message);
    if (reply.photos[0].error) return fail(job, reply.photos[0].error.message);
    show(job, reply.photos[0]);
  }

  function next() {
    while (running < MAX_UPLOADS && queue.length) {
      const job = queue.shift();
      running++;
      classify(job).catch(function () {
        if (!job.abort.signal.aborted) fail(job, text.noAnswer);
      }).finally(function () {
        running--;
        showCount();
        next();
      });
    }
  }

  function makeJob(file) {
    const card = element('article', 'card');
    card.append(element('p', 'file', file.name));
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
    return {file: file, card: card, abort: abort};
  }

  // Ends the requests of the photos on the page.
  let abort = new AbortController();

  function setState(hasResults) {
    results.hidden = clear.hidden = !hasResults;
    document.body.classList.toggle('has-results', hasResults);
    document.getElementById('choose').textContent = (
        hasResults ? text.more : text.choose);
  }

  function complain(sentence) {
    const line = element('p', 'error', sentence);
    line.setAttribute('role', 'alert');
    cards.prepend(line);
  }

  function addAll(files) {
    const most = Number(text.maxPhotos);
    const list = Array.from(files);
    if (!list.length) return;
    setState(true);
    const jobs = list.slice(0, most).map(makeJob);
    // The newest selection comes first, with its photos in their order.
    cards.prepend(...jobs.map(function (job) { return job.card; }));
    queue.push(...jobs);
    count += jobs.length;
    if (list.length > most) complain(text.tooMany);
    announcer.textContent = text.waiting;
    showCount();
    if (window.matchMedia(NARROW).matches) cards.firstChild.scrollIntoView();
    next();
  }

  clear.addEventListener('click', function () {
    abort.abort();
    abort = new AbortController();
    queue = [];
    count = done = 0;
    cards.replaceChildren();
    setState(false);
    announcer.textContent = text.cleared;
    document.getElementById('file').focus();
  });
  form.addEventListener('submit', function (event) { event.preventDefault(); });
  form.querySelectorAll('input[type=file]').forEach(function (input) {
    input.addEventListener('change', function () {
      const files = Array.from(input.files);
      form.reset();  // So that the same file can be chosen again.
      addAll(files);
    });
  });
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

  // An example becomes a button that classifies it.
  document.querySelectorAll('img.example').forEach(function (image) {
    const button = element('button', 'try');
    const label = image.dataset.label;
    button.type = 'button';
    button.setAttribute('aria-label', fill(text.tryExample, {label: label}));
    image.replaceWith(button);
    button.append(image);
    button.addEventListener('click', async function () {
      try {
        // The server may have changed to another graph since.
        const reply = await fetch(image.src, {cache: 'force-cache'});
        if (!reply.ok) {
          setState(true);
          return complain(text.examplesChanged);
        }
        const photo = await reply.blob();
        addAll([new File([photo], label + '.jpg', {type: 'image/jpeg'})]);
      } catch (error) {
        setState(true);
        complain(text.noAnswer);
      }
    });
  });
  document.documentElement.classList.add('scripts');
  document.querySelectorAll('.scripted').forEach(function (part) {
    part.hidden = false;
  });
})();
