// A rejection that nobody handles.
setTimeout(() => console.log('never'), 1000);
Promise.reject(new Error('rejected'));
